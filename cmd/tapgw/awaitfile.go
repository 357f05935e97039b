package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// awaitFile waits until ok, and looks again whenever something happens beside a file, or above where its folder is to be. The end
// of ctx is no error.
func awaitFile(ctx context.Context, path string, ok func() bool) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch for %s: %w", path, err)
	}
	defer w.Close()
	for {
		dir := folderAbove(path)
		if err := w.Add(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("watch for %s: %w", path, err)
		}
		if dir != folderAbove(path) {
			continue // it was made, or went, before anything could be seen of that
		}
		if ok() {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			return fmt.Errorf("watch for %s: %w", path, err)
		case <-w.Events:
		}
	}
}

// folderAbove is the lowest folder of a path that there is.
func folderAbove(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
	}
}
