package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/evently/evently/bench"
	"github.com/evently/evently/bench/peers"
	"github.com/evently/evently/store"
)

// Bounds of a bench.
const (
	benchConnectionsMax = 4096 // what a node answers at a time
	benchUsersMax       = 100_000
	benchRoundsMax      = 100
	benchRateMax        = 1_000_000
	benchTimeMax        = time.Hour
	benchTargetEvents   = 1000 // at most, of a workload at a --target: they stay there

	// What a measurement may take that ends with its demand, which slow designs do not meet.
	benchDemandMax      = 20 * time.Second
	benchDemandMaxQuick = 2 * time.Second
)

// benchOptions are the flags of `evently bench`.
type benchOptions struct {
	compare     bool
	quick       bool
	designs     []string
	workloads   []string
	connections []int
	rate        float64
	duration    time.Duration
	warmup      time.Duration
	rounds      int
	users       int
	seed        uint64

	target      string
	tokens      string
	databaseURL string

	json, html string
	markdown   bool

	set func(flag string) bool // on the command line
}

func (s *shell) benchCommand() *cobra.Command {
	o := new(benchOptions)
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast seats are booked, here or elsewhere, and audit what was sold",
		Long: `Measure how fast seats are booked, and compare what clients were told with what is stored: a figure whose audit failed is no result.

Without a flag everybody books seats of one event, at a node that runs for this purpose over a Postgres of its own (fsync on), beside
a server that books nothing: the ceiling. With --compare it does so with all designs that seats are usually sold by, under all
workloads, which takes some 15 minutes. With --target it measures a node elsewhere as hard as it can, and the events and bookings that
it makes there stay: do not aim it at what people book with.

All designs have the same settings: limits of requests, the access log, pricing runs, and what follows bookings (analytics, mails,
webhooks) are off.

Workloads: ` + strings.Join(workloadNames(), ", ") + `.
Designs: ` + strings.Join(designNames(), ", ") + `.

The result goes to standard output, the progress to standard error. Ctrl-C ends it with what was measured until then. Exit code 1 if the
audit of a durable design failed, or a ceiling could not be measured.`,
	}
	flags := command.Flags()
	flags.BoolVar(&o.compare, "compare", false, "measure all designs under all workloads")
	flags.BoolVar(&o.quick, "quick", false, "one short round: whether it works, not how fast")
	flags.StringSliceVar(&o.designs, "design", nil, "comma list of designs (default evently,noop)")
	flags.StringSliceVar(&o.workloads, "workload", nil, "comma list of workloads (default hot)")
	flags.IntSliceVar(&o.connections, "connections", nil, "comma list of numbers of connections (default 64,256)")
	flags.Float64Var(&o.rate, "rate", 0, "requests a second that are due, answers or not (default: as fast as answers come)")
	flags.DurationVar(&o.duration, "duration", 0, "of a measurement (default 4s, with --compare 2s, with --quick 1s)")
	flags.DurationVar(&o.warmup, "warmup", 0, "before each measurement (default 1s, with --compare 500ms, with --quick 200ms)")
	flags.IntVar(&o.rounds, "rounds", 0, "how often everything is measured (default 1, with --compare 3)")
	flags.IntVar(&o.users, "users", 0, "how many users book (default 1000, with --target 32)")
	flags.Uint64Var(&o.seed, "seed", 1, "of all that is random in the load")
	flags.StringVar(&o.target, "target", "", "URL of an API that is to be measured; needs an administrator: --admin-email, --admin-password")
	flags.StringVar(&o.tokens, "tokens", "", "file with access tokens of users, one a line, for --target (default: users are registered)")
	flags.StringVar(&o.databaseURL, "database-url", "", "Postgres to make databases in, which are removed in the end, and to have checkpoints "+
		"taken; the role needs createdb and pg_checkpoint (default: one of its own)")
	flags.StringVar(&o.json, "json", "", "file for all that was measured; - is standard output")
	flags.StringVar(&o.html, "html", "", "file for a page with plots; - is standard output")
	flags.BoolVar(&o.markdown, "markdown", false, "print the table as Markdown")
	o.set = func(flag string) bool { return flags.Changed(flag) }
	command = s.configured(command, administrator, func(ctx context.Context, config *Config, _ *slog.Logger) error {
		if err := o.complete(config); err != nil {
			return usageError{err}
		}
		return s.bench(ctx, config, o)
	})
	// Of the settings these alone matter here; what is measured has its own: see benchHost.settings.
	flags.Lookup("admin-email").Usage = "of the administrator or organizer at --target"
	flags.Lookup("admin-password").Usage = "password of the same"
	for _, name := range []string{"config", "env", "log-format", "log-level", "data-dir"} {
		flags.Lookup(name).Hidden = true
	}
	command.AddCommand(s.benchServeCommand())
	return command
}

func workloadsNamed(names []string) (list []bench.Workload) {
	for _, name := range names {
		w, _ := bench.WorkloadNamed(name)
		list = append(list, w)
	}
	return list
}

func workloadNames() (names []string) {
	for _, w := range bench.Workloads() {
		names = append(names, w.Name)
	}
	return names
}

// benchDesigns are all designs, in the order of a table.
func benchDesigns() []bench.Design {
	list := []bench.Design{{
		Name: bench.ReferenceName, Title: "Evently", Durable: true, Conns: store.MaxConnsDefault,
		About: "one actor for each event decides in memory and answers when Postgres has committed; many decisions share a commit",
	}}
	for _, peer := range peers.All() {
		list = append(list, peer.Design)
	}
	return list
}

func designNames() (names []string) {
	for _, d := range benchDesigns() {
		names = append(names, d.Name)
	}
	return names
}

// complete sets defaults and returns what cannot be meant.
func (o *benchOptions) complete(config *Config) error {
	if err := o.contradictions(config); err != nil {
		return err
	}
	users := 1000
	if o.target != "" {
		users = 32
	}
	defaults := benchOptions{duration: 4 * time.Second, warmup: time.Second, rounds: 1, users: users}
	switch {
	case o.quick:
		defaults.duration, defaults.warmup = time.Second, 200*time.Millisecond
	case o.compare:
		defaults.duration, defaults.warmup, defaults.rounds = 2*time.Second, 500*time.Millisecond, 3
	}
	if !o.set("duration") {
		o.duration = defaults.duration
	}
	if !o.set("warmup") {
		o.warmup = defaults.warmup
	}
	if !o.set("rounds") {
		o.rounds = defaults.rounds
	}
	if !o.set("users") {
		o.users = defaults.users
	}
	if len(o.connections) == 0 {
		o.connections = []int{64, 256}
	}
	if len(o.workloads) == 0 {
		o.workloads = []string{"hot"}
	}
	if len(o.designs) == 0 {
		o.designs = []string{bench.ReferenceName, bench.CeilingName}
	}
	return errors.Join(o.bounds(), openFilesSuffice(slices.Max(o.connections)))
}

// benchFilesMore is how many files this process and those that it measures have open besides the connections of a load, at most.
const benchFilesMore = 256

// openFilesSuffice returns an error where this process, or one that it starts, cannot have so many connections. The Go runtime has
// raised the soft limit to the hard one.
func openFilesSuffice(connections int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if need := connections + benchFilesMore; uint64(limit.Cur) < uint64(need) { //nolint:unconvert // the types differ between systems
		return fmt.Errorf("--connections: %d need %d open files, and the limit of this process is %d: raise it (ulimit -n)",
			connections, need, limit.Cur)
	}
	return nil
}

func (o *benchOptions) contradictions(config *Config) error {
	for _, pair := range [][2]string{
		{"compare", "target"},
		{"compare", "design"},
		{"compare", "workload"},
		{"compare", "rate"},
		{"target", "design"},
		{"target", "database-url"},
		{"tokens", "users"},
	} {
		if o.set(pair[0]) && o.set(pair[1]) {
			return fmt.Errorf("--%s and --%s do not go together", pair[0], pair[1])
		}
	}
	if o.json != "" && o.json == o.html {
		return errors.New("--json and --html need files of their own")
	}
	if o.target == "" {
		for _, flag := range []string{"tokens", "admin-email", "admin-password", "admin-password-file"} {
			if o.set(flag) {
				return fmt.Errorf("--%s is for --target", flag)
			}
		}
	} else if config.AdminPassword == "" {
		return errors.New("--target needs an administrator or organizer, who publishes the events: --admin-email, --admin-password")
	}
	if o.target != "" {
		if _, err := bench.ParseEndpoint(o.target); err != nil {
			return fmt.Errorf("--target: %w", err)
		}
	}
	if o.json == "-" && (o.html == "-" || o.markdown) || o.html == "-" && o.markdown {
		return errors.New("only one of --json -, --html - and --markdown can have the standard output")
	}
	return nil
}

func (o *benchOptions) bounds() error {
	for _, name := range o.workloads {
		w, found := bench.WorkloadNamed(name)
		switch {
		case !found:
			return fmt.Errorf("--workload: %q is none of %s", name, strings.Join(workloadNames(), ", "))
		case o.target != "" && w.Events > benchTargetEvents:
			return fmt.Errorf("--workload: %s would leave %d events at --target, and at most %d are made there", name, w.Events, benchTargetEvents)
		}
	}
	for _, name := range o.designs {
		if !slices.Contains(designNames(), name) {
			return fmt.Errorf("--design: %q is none of %s", name, strings.Join(designNames(), ", "))
		}
	}
	for flag, list := range map[string][]string{"workload": o.workloads, "design": o.designs} {
		if len(slices.Compact(slices.Sorted(slices.Values(list)))) < len(list) {
			return fmt.Errorf("--%s: a name stands twice", flag)
		}
	}
	for _, n := range o.connections {
		if n < 1 || n > benchConnectionsMax {
			return fmt.Errorf("--connections: %d is not from 1 to %d", n, benchConnectionsMax)
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(o.connections)))) < len(o.connections) {
		return errors.New("--connections: a number stands twice")
	}
	switch {
	case o.rounds < 1 || o.rounds > benchRoundsMax:
		return fmt.Errorf("--rounds: must be 1 to %d", benchRoundsMax)
	case o.users < 1 || o.users > benchUsersMax:
		return fmt.Errorf("--users: must be 1 to %d", benchUsersMax)
	case o.set("rate") && !(o.rate > 0 && o.rate <= benchRateMax):
		return fmt.Errorf("--rate: must be above 0 and at most %d", benchRateMax)
	case o.duration < 100*time.Millisecond || o.duration > benchTimeMax:
		return fmt.Errorf("--duration: must be 100ms to %s", short(benchTimeMax))
	case o.warmup < 0 || o.warmup > benchTimeMax:
		return fmt.Errorf("--warmup: must be 0s to %s", short(benchTimeMax))
	}
	return nil
}

// plans are what is to be measured, one after the other.
func (o *benchOptions) plans(host bench.Host, designs []bench.Design) []bench.Plan {
	plan := func(connections []int, names ...string) bench.Plan {
		return bench.Plan{
			Host: host, Designs: designs, Connections: connections, Rate: o.rate, Rounds: o.rounds,
			Duration: o.duration, Warmup: o.warmup, DemandMax: o.demandMax(), Seed: o.seed, Workloads: workloadsNamed(names),
		}
	}
	if !o.compare {
		only := plan(o.connections, o.workloads...)
		only.Discard = o.discards()
		return []bench.Plan{only}
	}
	most := []int{slices.Max(o.connections)}
	hot := plan(o.connections, "hot")
	hot.HalfRate = []string{"hot"}
	others := plan(most, "sold-out", "read", "tail-1k", "mix")
	// The bare server answers all of them alike.
	others.Designs = slices.DeleteFunc(slices.Clone(designs), func(d bench.Design) bool { return d.Name == bareDesign })
	flash := plan(most, "flash")
	flash.Designs, flash.Rounds = others.Designs, 1 // it takes long, and to its end in one round says more than its beginning in some
	many := plan(most, "tail-100k")
	many.Designs = designs[:1]
	hot.Discard = o.discards()
	return []bench.Plan{hot, others, flash, many}
}

// discards reports whether the first block is thrown away, as that of a machine whose caches are cold.
func (o *benchOptions) discards() bool { return !o.quick && o.target == "" }

// demandMax is what a measurement may take that ends with its demand.
func (o *benchOptions) demandMax() time.Duration {
	if o.quick {
		return benchDemandMaxQuick
	}
	return benchDemandMax
}

// method says how was measured.
func (o *benchOptions) method() string {
	text := fmt.Sprintf("Each measurement is a warm-up of %s and a window of %s", short(o.warmup), short(o.duration))
	if o.compare || slices.Contains(o.workloads, "flash") {
		text += fmt.Sprintf(" (flash: until its demand is met, for %s at most)", short(o.demandMax()))
	}
	if o.target == "" {
		rounds := "1 round"
		if o.rounds > 1 {
			rounds = fmt.Sprintf("%d rounds", o.rounds)
		}
		text += fmt.Sprintf("; in %s the designs take turns", rounds)
	}
	if o.compare {
		text += " (flash: in 1; tail-100k: the first design alone)"
	}
	if o.discards() {
		text += "; a first block of the first design is measured and thrown away"
	}
	return text + "."
}

// bench measures and reports. Whatever ends it, it leaves nothing behind, and reports what was measured.
func (s *shell) bench(ctx context.Context, config *Config, o *benchOptions) (err error) {
	outputs, err := s.openOutputs(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, outputs.Close()) }()
	report := &bench.Report{Version: thisBuild().Version, Commit: thisBuild().Commit, Began: time.Now(), Command: benchCommandLine(), Method: o.method()}
	progress := newBenchProgress(s.stderr)
	measured := s.measure(ctx, config, o, report, progress)
	progress.end()
	report.Seconds = time.Since(report.Began).Seconds()
	report.Summary = bench.Summaries(report.Rounds)
	if ctx.Err() != nil {
		measured = fmt.Errorf("interrupted after %d measurements: %w", len(report.Rounds), measured)
	}
	if measured != nil && len(report.Rounds) == 0 {
		return measured
	}
	if err := outputs.write(report); err != nil {
		return errors.Join(measured, err)
	}
	if faults := report.Faults(); len(faults) > 0 {
		measured = errors.Join(measured, fmt.Errorf("audits failed: %s", strings.Join(faults, "; ")))
	}
	return measured
}

// measure carries the plans out.
func (s *shell) measure(ctx context.Context, config *Config, o *benchOptions, report *bench.Report, progress *benchProgress) (err error) {
	progress.say("starting")
	host, end, err := o.host(ctx, config, report, progress.warn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end(context.WithoutCancel(ctx))) }()
	plans := o.plans(host, report.Designs)
	for i := range plans {
		report.Workload = append(report.Workload, plans[i].Workloads...)
	}
	for i := range plans {
		plans[i].Progress = progress.showing(i+1, len(plans))
		rounds, planErr := plans[i].Run(ctx)
		report.Rounds = append(report.Rounds, rounds...)
		err = errors.Join(err, planErr)
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// host is where the designs run, with the designs and the machine for the report.
func (o *benchOptions) host(
	ctx context.Context, config *Config, report *bench.Report, warn func(string),
) (bench.Host, func(context.Context) error, error) {
	if o.target != "" {
		warn(fmt.Sprintf("%s is loaded as hard as can be, and its events of the category Bench stay on sale", o.target))
		api, err := o.foreign(ctx, config)
		if err != nil {
			return nil, nil, err
		}
		report.Machine = bench.ThisMachine()
		report.Designs = []bench.Design{{Name: "target", Title: o.target, Durable: true, About: "what answers at this URL"}}
		return api, func(context.Context) error { return nil }, nil
	}
	for _, design := range benchDesigns() {
		if o.compare || slices.Contains(o.designs, design.Name) {
			report.Designs = append(report.Designs, design)
		}
	}
	needsRedis := func(d bench.Design) bool {
		peer, found := peers.Named(d.Name)
		return found && peer.Redis
	}
	host, err := newBenchHost(ctx, benchHostOptions{
		databaseURL: o.databaseURL, provision: config.PGProvision != never, users: o.users,
		redis: slices.ContainsFunc(report.Designs, needsRedis), log: slog.New(slog.DiscardHandler), warn: warn,
	})
	if err != nil {
		return nil, nil, err
	}
	for i := range report.Designs {
		if design := &report.Designs[i]; needsRedis(*design) && host.redis == "" {
			design.Absent = strings.TrimPrefix(peers.ErrNoRedis.Error(), "absent: ")
		}
	}
	report.Settings = benchSettings
	if report.Machine, err = host.describe(ctx); err == nil {
		err = store.CheckDurability(ctx, host.server)
		if errors.As(err, new(*store.DurabilityError)) {
			warn(err.Error())
			err = nil
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, host.Close(context.WithoutCancel(ctx)))
	}
	return host, host.Close, nil
}

// benchCommandLine is what was typed, but for what is secret.
func benchCommandLine() string {
	words := append([]string{"evently"}, os.Args[1:]...)
	for i, word := range words {
		for _, secret := range []string{"--admin-password", "--database-url"} {
			if flag, _, found := strings.Cut(word, "="); found && flag == secret {
				words[i] = secret + "=..."
			} else if word == secret && i+1 < len(words) {
				words[i+1] = "..."
			}
		}
	}
	return strings.Join(words, " ")
}
