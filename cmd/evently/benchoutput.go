package main

import (
	"bytes"
	"errors"
	"fmt"
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
		if path == "-" {
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

// benchFile is a file that is replaced at once when all is written, and stays as it is if that does not come about.
type benchFile struct {
	*os.File
	path string // that it takes; empty: it has it
}

// openBenchFile opens a file beside the one that it is to replace, or the one itself if that is no regular file but a pipe or a device.
func openBenchFile(path string) (*benchFile, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() || err != nil && !errors.Is(err, fs.ErrNotExist) {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &benchFile{File: file}, err
	}
	beside := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%x", filepath.Base(path), random64()))
	file, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	return &benchFile{file, path}, err
}

func (f *benchFile) write(write func(io.Writer) error) error {
	var text bytes.Buffer
	if err := write(&text); err != nil {
		return err
	}
	if _, err := f.Write(text.Bytes()); err != nil || f.path == "" {
		return err
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return err
	}
	f.path = ""
	return nil
}

func (f *benchFile) close() error {
	err := f.Close()
	if f.path != "" {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
