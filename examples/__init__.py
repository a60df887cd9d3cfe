"""The example support bundle, and what it and the bundles of tests are built with."""
