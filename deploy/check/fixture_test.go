package check

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// built is the program that the Dockerfile makes of the source, made once for all tests.
var built = sync.OnceValues(func() (program, error) {
	root, err := source()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(scratch, "context")
	deploy := filepath.Join(root, "deploy")
	sent, err := buildContext(root, filepath.Join(deploy, "Dockerfile.dockerignore"), folder)
	if err != nil {
		return "", err
	}
	if err := checkContext(sent); err != nil {
		return "", err
	}
	return build(contextOfTests, filepath.Join(deploy, "Dockerfile"), folder, scratch)
})

func testProgram(t *testing.T) program {
	t.Helper()
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testRoot(t *testing.T) string {
	t.Helper()
	root, err := source()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// edit is a change of a file: old is replaced by new wherever it stands. An empty old removes the file.
type edit struct{ file, old, new string }

// copied returns a copy of the deploy folder with an edit, which must change something.
func copied(t *testing.T, e edit) string {
	t.Helper()
	files, err := deployed(filepath.Join(testRoot(t), "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	before, found := files[e.file]
	switch {
	case !found || !strings.Contains(before, e.old):
		t.Fatalf("%s does not exist or has no %q", e.file, e.old)
	case e.old == "":
		delete(files, e.file)
	default:
		files[e.file] = strings.ReplaceAll(before, e.old, e.new)
	}
	folder := filepath.Join(t.TempDir(), "deploy")
	for name, content := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// defect is an edit that a check must find, and a part of what it says then.
type defect struct {
	edit
	want string
}

// testCheck has a check pass the deploy folder, and refuse each defect.
func testCheck(t *testing.T, check func(t *testing.T, deploy string) error, defects []defect) {
	t.Helper()
	if err := check(t, filepath.Join(testRoot(t), "deploy")); err != nil {
		t.Errorf("deploy: %v", err)
	}
	for _, d := range defects {
		t.Run(strings.Map(readable, d.file+": "+d.new), func(t *testing.T) {
			t.Parallel()
			err := check(t, copied(t, d.edit))
			if err == nil {
				t.Fatalf("%s: with %q for %q nothing is wrong", d.file, d.new, d.old)
			}
			if !strings.Contains(err.Error(), d.want) {
				t.Errorf("%s: with %q for %q the fault is %v; want %q", d.file, d.new, d.old, err, d.want)
			}
		})
	}
}

func readable(r rune) rune {
	if r < ' ' || r == '/' {
		return '_'
	}
	return r
}
