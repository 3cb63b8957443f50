package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// unit is a systemd unit: the values of each setting, in order. An empty value forgets those before.
type unit map[string][]string

// readUnit reads what this package asks about; systemd-analyze finds what is malformed.
func readUnit(path string) (unit, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	u := make(unit)
	for line := range strings.Lines(string(content)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && !strings.HasPrefix(name, "#") {
			u[name] = append(u[name], value)
		}
	}
	return u, nil
}

func (u unit) last(name string) string {
	if values := u[name]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// exposureMax is the most that `systemd-analyze security` may find open, of 100. A network service cannot have much less.
const exposureMax = "20"

// systemdAnalyze verifies a unit, with a program that exists, and rates how much is open to it.
func systemdAnalyze(ctx context.Context, path, folder string) error {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		return fmt.Errorf("systemd-analyze is missing: apt-get install systemd: %w", err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	present := filepath.Join(folder, filepath.Base(path))
	content = bytes.ReplaceAll(content, []byte(systemdProgram), []byte("/bin/true"))
	if err := os.WriteFile(present, content, 0o644); err != nil {
		return err
	}
	verify := exec.CommandContext(ctx, "systemd-analyze", "verify", "--man=no", present)
	if output, err := verify.CombinedOutput(); err != nil || len(output) > 0 { // it forgives much, but not in silence
		return fmt.Errorf("systemd-analyze verify: %v: %s", err, output)
	}
	rate := exec.CommandContext(ctx, "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold="+exposureMax, present)
	if output, err := rate.CombinedOutput(); err != nil {
		return fmt.Errorf("systemd-analyze security: %w: %s", err, output)
	}
	return nil
}

const (
	systemdProgram = "/usr/local/bin/evently"
	// credentials stands for %d, where a service finds its credentials.
	credentials = "/run/credentials/evently.service"
)

// systemdNode reads the settings of the unit in a folder and of the example of its environment.
func systemdNode(folder string) (*deployment, unit, error) {
	path := filepath.Join(folder, "evently.service")
	u, err := readUnit(path)
	if err != nil {
		return nil, nil, err
	}
	variables, err := readEnv(filepath.Join(folder, "evently.env.example"))
	if err != nil {
		return nil, nil, err
	}
	specifiers := strings.NewReplacer("%d", credentials, "%S", "/var/lib")
	for _, assignment := range u["Environment"] {
		name, value, _ := strings.Cut(assignment, "=")
		variables[name] = specifiers.Replace(value)
	}
	node := &deployment{name: path, variables: variables, secrets: credentials}
	if node.grace, err = time.ParseDuration(u.last("TimeoutStopSec")); err != nil {
		return nil, nil, fmt.Errorf("%s: TimeoutStopSec: %w", path, err)
	}
	return node, u, nil
}

var assignmentRE = regexp.MustCompile(`^([A-Z][A-Z0-9_]*)=(\S*)$`)

// readEnv reads a file of variables, whose values are plain words.
func readEnv(path string) (map[string]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	variables := make(map[string]string)
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		found := assignmentRE.FindStringSubmatch(line)
		if found == nil {
			return nil, fmt.Errorf("%s: %q is no variable", path, line)
		}
		if _, twice := variables[found[1]]; twice {
			return nil, fmt.Errorf("%s: %s stands twice", path, found[1])
		}
		variables[found[1]] = found[2]
	}
	return variables, nil
}

// checkSystemd holds the unit in a folder to rules of our own.
func checkSystemd(ctx context.Context, root, folder string, p program) error {
	node, u, err := systemdNode(folder)
	if err != nil {
		return err
	}
	wrong := []error{checkNode(root, node, 1+strings.Count(node.variables["EVENTLY_JOIN"], ","))}
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(node.name+": "+format, args...)) }
	for name, want := range map[string]string{
		"Restart": "always", "KillSignal": "SIGTERM", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": "",
		"EnvironmentFile": "/etc/evently/evently.env", "StartLimitIntervalSec": "0",
	} {
		if values := u[name]; len(values) != 1 || values[0] != want {
			complain("%s is %q, want %q", name, values, want)
		}
	}
	if u.last("DynamicUser") != "yes" && (u.last("User") == "" || u.last("User") == "root") {
		complain("it runs as root")
	}
	if u.last("RestartPreventExitStatus") != "" {
		complain("RestartPreventExitStatus: a program that panics ends with 2, as one with wrong settings does")
	}
	loaded := make(map[string]bool)
	for _, credential := range u["LoadCredential"] {
		name, _, _ := strings.Cut(credential, ":")
		loaded[credentials+"/"+name] = true
	}
	for name, value := range node.variables {
		if strings.HasPrefix(value, credentials) && !loaded[value] {
			complain("%s names a credential that is not loaded", name)
		}
		delete(loaded, value)
	}
	for path := range loaded {
		complain("the credential %s is loaded and not used", filepath.Base(path))
	}
	args, found := strings.CutPrefix(u.last("ExecStart"), systemdProgram+" ")
	if !found {
		complain("ExecStart is %q", u.last("ExecStart"))
	} else if err := p.checkCommand(ctx, strings.Fields(args)...); err != nil {
		complain("ExecStart: %w", err)
	}
	return errors.Join(wrong...)
}
