// Package web holds the dashboard's page: plain files that a browser runs as they are, without anything from elsewhere.
package web

import (
	"embed"
	"io/fs"
)

//go:embed static
var files embed.FS

// Static is the files, index.html at the top.
func Static() fs.FS {
	static, err := fs.Sub(files, "static")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return static
}
