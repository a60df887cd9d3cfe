"""zsh and bash-completion, for the tests of completion."""
