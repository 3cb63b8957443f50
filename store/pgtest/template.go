package pgtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/evently/evently/store/embedded"
)

// templateRevision changes when templates of older code must not be used any more.
const templateRevision = 1

// newDataDir is a scratch whose dataDir is a copy of the template.
func newDataDir(ctx context.Context) (made *scratch, err error) {
	err = inWorkshop(ctx, func(shop workshop) error {
		template, err := shop.template(ctx)
		if err != nil {
			return err
		}
		if made, err = shop.newScratch(); err != nil {
			return err
		}
		if err := copyTree(made.dataDir(), template); err != nil {
			return errors.Join(fmt.Errorf("copy the template: %w", err), made.remove())
		}
		return nil
	})
	return made, err
}

// template is a data directory of a server that was started once and stopped. It is made when there is none for
// the installed Postgres, or when it is not whole: cleaners of temporary directories take single files.
func (w workshop) template(ctx context.Context) (string, error) {
	install, err := embedded.Find(ctx, embedded.Config{})
	if err != nil {
		return "", err
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%d %+v %v", templateRevision, install, settings))
	dir := filepath.Join(string(w), fmt.Sprintf("template-%x", key[:6]))
	sizeFile := dir + ".size"
	whole, err := hasSize(dir, sizeFile)
	if err != nil || whole {
		return dir, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	scratch, err := w.newScratch()
	if err != nil {
		return "", err
	}
	err = makeTemplate(ctx, scratch.dataDir())
	if err == nil {
		err = os.Rename(scratch.dataDir(), dir)
	}
	if err := errors.Join(err, scratch.remove()); err != nil {
		return "", fmt.Errorf("make the template: %w", err)
	}
	size, err := treeSize(dir)
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(sizeFile, []byte(size), 0o600)
}

func makeTemplate(ctx context.Context, dataDir string) error {
	server, err := embedded.Start(ctx, config(dataDir))
	if err != nil {
		return err
	}
	return server.Stop(ctx)
}

// hasSize compares a template with the size noted when it was made.
func hasSize(dir, sizeFile string) (bool, error) {
	noted, err := os.ReadFile(sizeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	size, err := treeSize(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && size == string(noted), err
}

func treeSize(dir string) (string, error) {
	var entries, bytes int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		entries++
		if info.Mode().IsRegular() {
			bytes += info.Size()
		}
		return nil
	})
	return fmt.Sprintf("%d entries, %d bytes", entries, bytes), err
}

// copyTree copies directories and regular files, with mode and owner.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case info.IsDir():
			err = os.Mkdir(target, 0o700)
		case info.Mode().IsRegular():
			err = copyFile(target, path)
		default:
			err = fmt.Errorf("%s is no regular file", path)
		}
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		return errors.Join(os.Chmod(target, info.Mode().Perm()), os.Lchown(target, int(owner.Uid), int(owner.Gid)))
	})
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errors.Join(err, source.Close())
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close(), source.Close())
}
