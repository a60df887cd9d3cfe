// Checks rule files as `promtool check rules` does, with the same package of Prometheus.
package main

import (
	"fmt"
	"os"

	"github.com/prometheus/prometheus/model/rulefmt"
)

func main() {
	failed := false
	for _, name := range os.Args[1:] {
		groups, errs := rulefmt.ParseFile(name, false)
		for _, err := range errs {
			failed = true
			fmt.Fprintln(os.Stderr, err)
		}
		if groups != nil {
			for _, group := range groups.Groups {
				fmt.Printf("%s: %d rules\n", group.Name, len(group.Rules))
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}
