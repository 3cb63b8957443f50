package check

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
)

// checkDockerfile parses and lints a Dockerfile as `docker build --check` does, and holds it to rules of our own.
func checkDockerfile(ctx context.Context, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file := llb.NewSourceMap(nil, path, "Dockerfile", text)
	file.Definition = new(llb.Definition)
	results, err := dockerfile2llb.DockerfileLint(ctx, text, dockerfile2llb.ConvertOpt{SourceMap: file, MetaResolver: offline{}})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var wrong []error
	if results.Error != nil {
		wrong = append(wrong, fmt.Errorf("%s: %s", path, results.Error.Message))
	}
	for _, warning := range results.Warnings {
		wrong = append(wrong, fmt.Errorf("%s: %s: %s", path, warning.RuleName, warning.Detail))
	}
	stages, err := stagesOf(text)
	if err != nil {
		return errors.Join(append(wrong, fmt.Errorf("%s: %w", path, err))...)
	}
	for _, stage := range stages {
		if !pinned(stage.BaseName) {
			wrong = append(wrong, fmt.Errorf("%s: the base image %s is not pinned to a version", path, stage.BaseName))
		}
	}
	if err := checkImage(&stages[len(stages)-1]); err != nil {
		wrong = append(wrong, fmt.Errorf("%s: %w", path, err))
	}
	return errors.Join(wrong...)
}

func stagesOf(text []byte) ([]instructions.Stage, error) {
	file, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	stages, _, err := instructions.Parse(file.AST, linter.New(&linter.Config{}))
	if err == nil && len(stages) < 2 {
		err = errors.New("one stage only: the compiler would be in the image")
	}
	return stages, err
}

// checkImage refuses a last stage that is not run as it should be.
func checkImage(stage *instructions.Stage) error {
	var wrong []error
	found := make(map[string]bool)
	for _, command := range stage.Commands {
		found[strings.ToUpper(command.Name())] = true
		switch c := command.(type) {
		case *instructions.UserCommand:
			if !regexp.MustCompile(`^[1-9]\d*(:[1-9]\d*)?$`).MatchString(c.User) {
				wrong = append(wrong, fmt.Errorf("USER %s: Kubernetes sees only of a number that it is not root", c.User))
			}
		case *instructions.EntrypointCommand:
			if c.PrependShell {
				wrong = append(wrong, errors.New("ENTRYPOINT needs a shell, which is not there and keeps signals from the program"))
			}
		case *instructions.StopSignalCommand:
			if c.Signal != "SIGTERM" {
				wrong = append(wrong, fmt.Errorf("STOPSIGNAL %s: the program drains at SIGTERM", c.Signal))
			}
		case *instructions.RunCommand:
			wrong = append(wrong, errors.New("RUN in an image without a shell"))
		}
	}
	for _, name := range []string{"USER", "ENTRYPOINT", "STOPSIGNAL", "EXPOSE", "LABEL", "COPY"} {
		if !found[name] {
			wrong = append(wrong, fmt.Errorf("the image has no %s", name))
		}
	}
	return errors.Join(wrong...)
}

// pinned reports whether an image is one of a version. The tags of distroless images have none; the Debian release is in their name.
func pinned(image string) bool {
	if strings.HasPrefix(image, "gcr.io/distroless/") {
		return strings.HasSuffix(image, ":nonroot") && regexp.MustCompile(`-debian\d+:`).MatchString(image)
	}
	return regexp.MustCompile(`:v?\d+\.\d+[^/]*$|@sha256:[0-9a-f]{64}$`).MatchString(image)
}

// offline knows of every image as much as the linter needs.
type offline struct{}

func (offline) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Env": []string{"PATH=/usr/local/go/bin:/usr/bin:/bin"}},
	})
	return ref, digest.FromBytes(config), config, err
}

// buildContext copies of a source tree into a folder what a build would be sent of it, and returns the relative paths.
func buildContext(source, ignored, to string) ([]string, error) {
	file, err := os.Open(ignored)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		return nil, err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ignored, err)
	}
	var sent []string
	err = filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, path)
		if err != nil || relative == "." {
			return err
		}
		skip, err := matcher.MatchesOrParentMatches(relative)
		switch {
		case err != nil:
			return err
		case skip && entry.IsDir() && !matcher.Exclusions():
			return filepath.SkipDir
		case skip:
			return nil
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, relative), 0o755)
		case !entry.Type().IsRegular():
			return nil
		}
		sent = append(sent, relative)
		return copyFile(path, filepath.Join(to, relative))
	})
	return sent, err
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o644)
}

// checkContext refuses what has no business in a build: secrets and history above all.
func checkContext(sent []string) error {
	var wrong []error
	for _, path := range sent {
		if top, _, _ := strings.Cut(path, "/"); slices.Contains([]string{".git", ".ci", "deploy", "bin", "dist"}, top) ||
			strings.HasSuffix(path, "_test.go") {
			wrong = append(wrong, fmt.Errorf("the build's context has %s", path))
		}
	}
	return errors.Join(wrong...)
}

// The version that build has the program say it is.
const (
	builtVersion = "0.0.0-check"
	builtCommit  = "0123456789abcdef0123456789abcdef01234567"
)

// outFile is where a Dockerfile puts the program.
const outFile = "/out/evently"

// build carries out the last RUN of a Dockerfile's first stage in a folder that holds the context, and puts the program into
// another one. The modules that the RUN before it downloads come from the module cache here.
func build(ctx context.Context, dockerfile, folder, to string) (program, error) {
	text, err := os.ReadFile(dockerfile)
	if err != nil {
		return "", err
	}
	stages, err := stagesOf(text)
	if err != nil {
		return "", err
	}
	var script string
	for _, command := range stages[0].Commands {
		if run, ok := command.(*instructions.RunCommand); ok {
			script = strings.Join(run.CmdLine, " ")
		}
	}
	built := filepath.Join(to, "evently")
	if !strings.Contains(script, outFile) {
		return "", fmt.Errorf("%s: RUN %q does not make %s", dockerfile, script, outFile)
	}
	command := exec.CommandContext(ctx, "/bin/sh", "-c", strings.ReplaceAll(script, outFile, built))
	command.Dir = folder
	command.Env = append(os.Environ(), "VERSION="+builtVersion, "COMMIT="+builtCommit, "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH)
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %s: %w: %s", dockerfile, script, err, output)
	}
	return program(built), nil
}

// checkStatic refuses a program that needs anything of the image but the kernel, or does not know which one it is.
func (p program) checkStatic(ctx context.Context) error {
	file, err := elf.Open(string(p))
	if err != nil {
		return err
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return errors.New("the program is linked dynamically: the image has no linker")
		}
	}
	output, code, err := p.run(ctx, nil, "version", "--json")
	if err != nil || code != 0 {
		return fmt.Errorf("evently version: exit code %d, %v: %s", code, err, output)
	}
	var is struct{ Version, Commit string }
	if err := json.Unmarshal([]byte(output), &is); err != nil {
		return fmt.Errorf("evently version: %w: %s", err, output)
	}
	if is.Version != builtVersion || is.Commit != builtCommit {
		return fmt.Errorf("the program is version %q of commit %q, want %q of %q", is.Version, is.Commit, builtVersion, builtCommit)
	}
	return nil
}
