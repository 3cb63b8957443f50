package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// program is the path of a built evently.
type program string

// commandMax bounds a command of the program; none of those below does more than read settings.
const commandMax = 30 * time.Second

// run carries out a command with nothing but env as its environment.
func (p program) run(ctx context.Context, env map[string]string, args ...string) (output string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandMax)
	defer cancel()
	command := exec.CommandContext(ctx, string(p), args...)
	command.Env = []string{}
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	var both bytes.Buffer
	command.Stdout, command.Stderr = &both, &both
	err = command.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	return both.String(), command.ProcessState.ExitCode(), err
}

var flagRE = regexp.MustCompile(`(?m)^ +--([a-z-]+) string`)

// settings returns the variables that the program reads, by its own help.
func (p program) settings(ctx context.Context) (map[string]bool, error) {
	help, code, err := p.run(ctx, nil, "serve", "--help")
	if err != nil || code != 0 {
		return nil, fmt.Errorf("evently serve --help: exit code %d, %v: %s", code, err, help)
	}
	variables := make(map[string]bool)
	for _, flag := range flagRE.FindAllStringSubmatch(help, -1) {
		variables["EVENTLY_"+strings.ToUpper(strings.ReplaceAll(flag[1], "-", "_"))] = true
	}
	if !variables["EVENTLY_HTTP_ADDR"] || !variables["EVENTLY_JWT_SECRET_FILE"] {
		return nil, fmt.Errorf("evently serve --help shows no settings: %s", help)
	}
	return variables, nil
}

var variableRE = regexp.MustCompile(`\bEVENTLY_[A-Z0-9_]*[A-Z0-9]\b`)

// checkVariables refuses a variable of Evently's anywhere in a deploy folder that is no setting.
func checkVariables(ctx context.Context, deploy string, p program) error {
	known, err := p.settings(ctx)
	if err != nil {
		return err
	}
	files, err := deployed(deploy)
	if err != nil {
		return err
	}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, variable := range variableRE.FindAllString(files[name], -1) {
			if !known[variable] {
				wrong = append(wrong, fmt.Errorf("%s: %s is no setting", name, variable))
			}
		}
	}
	return errors.Join(wrong...)
}

// A deployment is one node as some file deploys it.
type deployment struct {
	name      string
	variables map[string]string
	secrets   string        // the folder that the node finds its secrets in
	grace     time.Duration // from the request to stop to the kill
	before    time.Duration // of it what passes before the node is told
}

// checkSettings has the program read the settings of a deployment, with the secrets in a folder here.
func (p program) checkSettings(ctx context.Context, d *deployment, secrets string) error {
	variables := make(map[string]string, len(d.variables))
	for name, value := range d.variables {
		variables[name] = strings.Replace(value, d.secrets, secrets, 1)
	}
	output, code, err := p.run(ctx, variables, "config", "print")
	if err != nil || code != 0 {
		return fmt.Errorf("%s: evently config print: exit code %d, %v: %s", d.name, code, err, output)
	}
	// As far as a node comes without a database: it has found all settings right and production has accepted them.
	for _, name := range []string{"HTTP", "ADMIN", "CLUSTER", "REMOTE"} {
		variables["EVENTLY_"+name+"_ADDR"] = "127.0.0.1:0"
	}
	variables["EVENTLY_START_TIMEOUT"] = "0s"
	output, code, err = p.run(ctx, variables, "serve")
	if err != nil || code != 1 || !strings.Contains(output, "no database within start_timeout") {
		return fmt.Errorf("%s: evently serve: exit code %d, %v; want a node that misses its database alone: %s", d.name, code, err, output)
	}
	return nil
}

// lastCommitMax is the default JournalConfig.Timeout of package store: what a commit takes at the most.
const lastCommitMax = 10 * time.Second

// followersMax is what the parts take that follow bookings: the jobs, jobsStopMax of package store twice, and an attempt at a webhook with
// the record of its outcome, stopGrace and databaseMax of package messages.
const followersMax = (2*8 + 2 + 5) * time.Second

// checkNode holds a deployment to what every node of a cluster of a size needs.
func checkNode(root string, d *deployment, nodes int) error {
	var wrong []error
	complain := func(format string, args ...any) {
		wrong = append(wrong, fmt.Errorf(d.name+": "+format, args...))
	}
	if got := d.variables["EVENTLY_ENV"]; got != "production" {
		complain("EVENTLY_ENV is %q", got)
	}
	if got, want := d.variables["EVENTLY_CLUSTER_QUORUM"], strconv.Itoa(nodes/2+1); got != want {
		complain("EVENTLY_CLUSTER_QUORUM is %q, of %d nodes the majority is %s", got, nodes, want)
	}
	for _, name := range []string{"DATABASE_URL", "JWT_SECRET", "CLUSTER_KEY"} {
		if path := d.variables["EVENTLY_"+name+"_FILE"]; !strings.HasPrefix(path, d.secrets+"/") {
			complain("EVENTLY_%s_FILE is %q, not below %s", name, path, d.secrets)
		}
	}
	for _, name := range []string{"EVENTLY_DATABASE_URL", "DATABASE_URL", "EVENTLY_JWT_SECRET", "JWT_SECRET", "EVENTLY_ADMIN_PASSWORD"} {
		if d.variables[name] != "" {
			complain("the secret %s stands in the open", name)
		}
	}
	if d.variables["EVENTLY_JOIN"] == "" {
		complain("EVENTLY_JOIN is not set")
	}
	need, err := stopMax(root, d.variables)
	if err != nil {
		complain("%w", err)
	} else if d.grace < d.before+need {
		complain("it is killed after %s, and a stop can take %s", d.grace, d.before+need)
	}
	return errors.Join(wrong...)
}

// stopMax is how long a node with these settings takes to stop at the most: the API's delay and drain, the drain of the operators'
// listener, what follows bookings, the events that move, and a last commit. See stop in cmd/evently/program.go.
func stopMax(root string, variables map[string]string) (time.Duration, error) {
	code, err := os.ReadFile(filepath.Join(root, "cmd", "evently", "program.go"))
	if err != nil {
		return 0, err
	}
	found := stopPartRE.FindSubmatch(code)
	if found == nil {
		return 0, errors.New("program.go has no partStopMax: how long does a part take to stop?")
	}
	part, err := time.ParseDuration(string(found[1]) + "s")
	if err != nil {
		return 0, err
	}
	drain, err := time.ParseDuration(variables["EVENTLY_DRAIN_TIMEOUT"])
	if err != nil {
		return 0, fmt.Errorf("EVENTLY_DRAIN_TIMEOUT: %w", err)
	}
	var delay time.Duration
	if text := variables["EVENTLY_DRAIN_DELAY"]; text != "" {
		if delay, err = time.ParseDuration(text); err != nil {
			return 0, fmt.Errorf("EVENTLY_DRAIN_DELAY: %w", err)
		}
	}
	return delay + 2*drain + followersMax + part + lastCommitMax, nil
}

// checkMemory refuses a GOMEMLIMIT that is not below nine tenths of a limit in bytes, or missing.
func checkMemory(variables map[string]string, limit int64) error {
	text, found := strings.CutSuffix(variables["GOMEMLIMIT"], "MiB")
	mebibytes, err := strconv.ParseInt(text, 10, 64)
	if !found || err != nil {
		return fmt.Errorf("GOMEMLIMIT is %q, not a number of MiB", variables["GOMEMLIMIT"])
	}
	if mebibytes<<20 > limit*9/10 {
		return fmt.Errorf("GOMEMLIMIT %d MiB is more than nine tenths of the limit of %d MiB", mebibytes, limit>>20)
	}
	return nil
}

// checkCommand refuses a command line of the program that it does not have.
func (p program) checkCommand(ctx context.Context, args ...string) error {
	output, code, err := p.run(ctx, nil, append(slices.Clone(args), "--help")...)
	usage := regexp.MustCompile("Usage:\n  evently " + regexp.QuoteMeta(strings.Join(args, " ")) + `( [A-Z]+)* \[flags\]\n`) // ARGUMENTS stand in capitals
	if err != nil || code != 0 || !usage.MatchString(output) {
		return fmt.Errorf("evently %s: exit code %d, %v: %s", strings.Join(args, " "), code, err, output)
	}
	return nil
}
