// Renders .krew.yaml as krew-release-bot does, with the archives of a directory for those of a
// release.
//
//	krew-template TEMPLATE TAG DIRECTORY
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/template"
)

type release struct{ TagName string }

func main() {
	file, tag, directory := os.Args[1], os.Args[2], os.Args[3]
	source := func(url, tag string) (string, error) {
		var uri strings.Builder
		inner, err := template.New("url").Parse(url)
		if err == nil {
			err = inner.Execute(&uri, release{tag})
		}
		if err != nil {
			return "", err
		}
		content, err := os.ReadFile(filepath.Join(directory, path.Base(uri.String())))
		// The bot's own indentation, whatever stands before its mark.
		return fmt.Sprintf("uri: %s\n    sha256: %x", uri.String(), sha256.Sum256(content)), err
	}
	made := template.New(filepath.Base(file)).Funcs(template.FuncMap{"addURIAndSha": source})
	parsed, err := made.ParseFiles(file)
	if err == nil {
		err = parsed.Execute(os.Stdout, release{tag})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
