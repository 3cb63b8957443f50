package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/evently/evently/bench"
)

// benchOutputs are where the report goes.
type benchOutputs struct {
	writes []func(*bench.Report) error
	files  []*benchFile
}

// openOutputs opens files before anything is measured, so that it is not measured in vain.
func (s *shell) openOutputs(o *benchOptions) (*benchOutputs, error) {
	out := new(benchOutputs)
	add := func(path string, write func(*bench.Report, io.Writer) error) error {
		if path == "-" || path == "/dev/stdout" { // to open that again would write over what a file behind it has
			out.writes = append(out.writes, func(r *bench.Report) error { return write(r, s.stdout) })
			return nil
		}
		file, err := openBenchFile(path)
		if err != nil {
			return errors.Join(err, out.Close())
		}
		out.files = append(out.files, file)
		out.writes = append(out.writes, func(r *bench.Report) error {
			return file.write(func(w io.Writer) error { return write(r, w) })
		})
		return nil
	}
	switch {
	case o.markdown:
		out.writes = append(out.writes, func(r *bench.Report) error { return r.WriteMarkdown(s.stdout) })
	case o.json != "-" && o.html != "-":
		out.writes = append(out.writes, func(r *bench.Report) error { return r.WriteTable(s.stdout) })
	}
	if o.json != "" {
		if err := add(o.json, (*bench.Report).WriteJSON); err != nil {
			return nil, err
		}
	}
	if o.html != "" {
		if err := add(o.html, (*bench.Report).WriteHTML); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (out *benchOutputs) write(report *bench.Report) error {
	var errs []error
	for _, write := range out.writes {
		errs = append(errs, write(report))
	}
	return errors.Join(errs...)
}

// Close closes the files. Those that nothing was written to are as they were.
func (out *benchOutputs) Close() error {
	var errs []error
	for _, file := range out.files {
		errs = append(errs, file.close())
	}
	out.files = nil
	return errors.Join(errs...)
}

// benchFile is a file that stays as it is until all is there. It is written in place then: it keeps its mode, its owner and its links, and
// its directory need not be writable.
type benchFile struct {
	*os.File
	fresh bool // this run has made it, and there is nothing in it
}

func openBenchFile(path string) (*benchFile, error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	}
	return &benchFile{file, fresh}, err
}

func (f *benchFile) write(write func(io.Writer) error) error {
	var text bytes.Buffer
	if err := write(&text); err != nil {
		return err
	}
	f.fresh = false
	n, err := f.Write(text.Bytes())
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() { // a pipe or a device
		return err
	}
	return errors.Join(f.Truncate(int64(n)), f.Sync())
}

func (f *benchFile) close() error {
	err := f.Close()
	if !f.fresh {
		return err
	}
	path, linkErr := filepath.EvalSymlinks(f.Name())
	if linkErr != nil {
		return errors.Join(err, linkErr)
	}
	return errors.Join(err, os.Remove(path))
}
