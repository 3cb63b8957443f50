package check

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// promtool returns the path of promtool: the one of $PROMTOOL or of $PATH, or else the one of Debian's package prometheus, which
// is unpacked into the user's cache and not installed: no server starts.
func promtool(ctx context.Context) (string, error) {
	if path := os.Getenv("PROMTOOL"); path != "" {
		return exec.LookPath(path)
	}
	if path, err := exec.LookPath("promtool"); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "evently-check")
	path := filepath.Join(folder, "prometheus", "usr", "bin", "promtool")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := unpack(ctx, "prometheus", folder); err != nil {
		return "", fmt.Errorf("promtool is missing, and Debian's package prometheus cannot be had: %w; install it, or name a promtool by "+
			"the variable PROMTOOL", err)
	}
	return path, nil
}

// unpack downloads a Debian package and unpacks it into a folder of its name. As root it renews the lists of packages when it must.
func unpack(ctx context.Context, name, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(folder, name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	download := func() error { return runIn(ctx, work, "apt-get", "download", "--quiet", name) }
	if err = download(); err != nil && os.Geteuid() == 0 {
		if err = runIn(ctx, work, "apt-get", "update", "--quiet"); err == nil {
			err = download()
		}
	}
	if err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(work, name+"_*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get download %s left %q: %v", name, packages, err)
	}
	if err := runIn(ctx, work, "dpkg-deb", "-x", packages[0], "root"); err != nil {
		return err
	}
	return os.Rename(filepath.Join(work, "root"), filepath.Join(folder, name))
}

func runIn(ctx context.Context, folder, name string, args ...string) error {
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = folder
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, output)
	}
	return nil
}

// checkPrometheus has promtool check a folder of configurations, rules and tests of the rules.
func checkPrometheus(ctx context.Context, folder string) error {
	tool, err := promtool(ctx)
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"},
		{"check", "config", "--lint=all", "--lint-fatal", "kubernetes.yml"},
		{"check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"},
		{"test", "rules", "alerts_test.yml"},
	} {
		if err := runIn(ctx, folder, tool, args...); err != nil {
			return err
		}
	}
	return nil
}

// alert is a rule of alerts.yml.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func readAlerts(path string) ([]alert, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Groups []struct {
			Name  string  `json:"name"`
			Rules []alert `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict(content, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var alerts []alert
	for _, group := range file.Groups {
		alerts = append(alerts, group.Rules...)
	}
	return alerts, nil
}

// vocabulary is what the code can show Prometheus.
type vocabulary struct {
	metrics map[string]bool // names of metrics
	words   map[string]bool // texts of the code, of which some are names and values of labels
}

// readVocabulary collects the texts that stand in the Go code below a source tree, and of those in files metrics.go the names of metrics.
func readVocabulary(root string) (*vocabulary, error) {
	v := &vocabulary{make(map[string]bool), make(map[string]bool)}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "deploy", "bench", "bin", "testdata"}, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					return false
				}
				v.words[text] = true
				if filepath.Base(path) == "metrics.go" && metricRE.FindString(text) == text {
					v.metrics[text] = true
				}
			}
			return true
		})
		return nil
	})
	if err == nil && len(v.metrics) == 0 {
		err = fmt.Errorf("%s has no metrics.go with names of metrics", root)
	}
	return v, err
}

var (
	metricRE   = regexp.MustCompile(`\bevently_[a-z0-9_]*[a-z0-9]\b`)
	histogram  = regexp.MustCompile(`_(bucket|sum|count)$`)
	matcherRE  = regexp.MustCompile(`([a-z_]+)\s*(?:=|!=|=~|!~)\s*"([^"]*)"`)
	statusRE   = regexp.MustCompile(`^[1-5]xx$`) // made of numbers by http/metrics.go
	scrapeTime = []string{"job", "instance"}     // labels that Prometheus adds
)

// check refuses an expression that asks for what the code does not show.
func (v *vocabulary) check(expression string) error {
	var wrong []error
	for _, name := range metricRE.FindAllString(expression, -1) {
		if !v.metrics[name] && !v.metrics[histogram.ReplaceAllString(name, "")] {
			wrong = append(wrong, fmt.Errorf("there is no metric %s", name))
		}
	}
	for _, found := range matcherRE.FindAllStringSubmatch(expression, -1) {
		label, values := found[1], strings.Split(found[2], "|")
		if slices.Contains(scrapeTime, label) {
			continue
		}
		if !v.words[label] {
			wrong = append(wrong, fmt.Errorf("no metric has a label %s", label))
		}
		for _, value := range values {
			if !v.words[value] && !statusRE.MatchString(value) {
				wrong = append(wrong, fmt.Errorf("no label %s is ever %q", label, value))
			}
		}
	}
	return errors.Join(wrong...)
}

// checkAlerts holds the rules of a deploy folder to the code, to their tests and to the runbooks.
func checkAlerts(root, deploy string) error {
	alerts, err := readAlerts(filepath.Join(deploy, "prometheus", "alerts.yml"))
	if err != nil {
		return err
	}
	known, err := readVocabulary(root)
	if err != nil {
		return err
	}
	tests, err := os.ReadFile(filepath.Join(deploy, "prometheus", "alerts_test.yml"))
	if err != nil {
		return err
	}
	sections, err := runbookSections(filepath.Join(deploy, "runbooks"))
	if err != nil {
		return err
	}
	var wrong []error
	for _, alert := range alerts {
		complain := func(format string, args ...any) {
			wrong = append(wrong, fmt.Errorf("alert "+alert.Alert+": "+format, args...))
		}
		if err := known.check(alert.Expr); err != nil {
			complain("%w", err)
		}
		if !slices.Contains([]string{"critical", "warning"}, alert.Labels["severity"]) {
			complain("severity is %q", alert.Labels["severity"])
		}
		if alert.Annotations["summary"] == "" || alert.Annotations["description"] == "" {
			complain("it has no summary or no description")
		}
		if file := sections[alert.Alert]; alert.Annotations["runbook"] != "deploy/runbooks/"+file+"#"+strings.ToLower(alert.Alert) {
			complain("its runbook is %q, and its section is in %q", alert.Annotations["runbook"], file)
		}
		delete(sections, alert.Alert)
		fires := regexp.MustCompile(`exp_samples:\s+- \{labels: 'ALERTS\{alertname="` + alert.Alert + `"`)
		if !fires.Match(tests) {
			complain("no test has it fire")
		}
		quiet := regexp.MustCompile(`eval_time: \w+, expr: 'ALERTS\{alertname="` + alert.Alert + `",alertstate="firing"\}'\}`)
		if alert.For != "" && !quiet.Match(tests) {
			complain("no test has it wait")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		wrong = append(wrong, fmt.Errorf("runbooks/%s: there is no alert %s", sections[name], name))
	}
	return errors.Join(wrong...)
}

// runbookSections returns the alerts that have a section, with the file that it is in.
func runbookSections(folder string) (map[string]string, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.md"))
	if err != nil {
		return nil, err
	}
	sections := make(map[string]string)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, found := range regexp.MustCompile(`(?m)^## (Evently\w+)$`).FindAllStringSubmatch(string(content), -1) {
			if sections[found[1]] != "" {
				return nil, fmt.Errorf("%s: %s has a section already", path, found[1])
			}
			sections[found[1]] = filepath.Base(path)
		}
	}
	return sections, nil
}

// scrapeConfig is what the checks read of a Prometheus configuration; promtool reads all of it.
type scrapeConfig struct {
	ScrapeConfigs []struct {
		StaticConfigs []struct {
			Targets []string `json:"targets"`
		} `json:"static_configs"`
		DNS []struct {
			Names []string `json:"names"`
			Port  int      `json:"port"`
		} `json:"dns_sd_configs"`
	} `json:"scrape_configs"`
}

// targets returns what a configuration scrapes, as name:port.
func targets(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var config scrapeConfig
	if err := yaml.Unmarshal(content, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var found []string
	for _, job := range config.ScrapeConfigs {
		for _, static := range job.StaticConfigs {
			found = append(found, static.Targets...)
		}
		for _, dns := range job.DNS {
			for _, name := range dns.Names {
				found = append(found, fmt.Sprintf("%s:%d", name, dns.Port))
			}
		}
	}
	return found, nil
}

// checkTargets refuses configurations that scrape other than what compose.yaml and the example overlay run.
func checkTargets(ctx context.Context, deploy string) error {
	project, err := loadCompose(ctx, filepath.Join(deploy, "compose.yaml"))
	if err != nil {
		return err
	}
	var nodes []string
	for name := range composeNodes(project) {
		nodes = append(nodes, name+":8081")
	}
	m, err := buildManifests(filepath.Join(deploy, "kubernetes", "overlays", "example"))
	if err != nil {
		return err
	}
	var wrong []error
	for file, want := range map[string][]string{"prometheus.yml": nodes, "kubernetes.yml": {m.scrapeName() + ":8081"}} {
		got, err := targets(filepath.Join(deploy, "prometheus", file))
		if err == nil {
			err = differ(got, want)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: targets: %w", file, err))
		}
	}
	return errors.Join(wrong...)
}
