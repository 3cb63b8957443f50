package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store"
)

// theSecret is the one that proctest gives its nodes.
const theSecret = "pJ5m/0a7kTq3vX9zWc1LrY8uBn4eHs6GdFo2"

// signer signs like a node with a secret.
func signer(secret string) Signer {
	digest := sha256.Sum256([]byte("evently token key " + secret))
	return Signer{KID: hex.EncodeToString(digest[:4]), Key: []byte(secret), TTL: 10 * time.Minute}
}

// hosts has each design started by a function.
type hosts map[string]func(ctx context.Context) (*Target, error)

func (h hosts) Start(ctx context.Context, design string) (*Target, error) { return h[design](ctx) }

// forgetful hides a reservation.
type forgetful struct{ Storage }

func (f forgetful) Reservations(ctx context.Context, events []evently.EventID, row func(Stored)) error {
	first := true
	return f.Storage.Reservations(ctx, events, func(r Stored) {
		if !first {
			row(r)
		}
		first = false
	})
}

// ceiling serves the answer of a ceiling.
func ceiling(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"id":"%s"}`, evently.ReservationID{Event: 1, Token: 1})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// small are all workloads, of a size for tests, at which those of many events are the same.
func small() []Workload {
	list := slices.DeleteFunc(Workloads(), func(w Workload) bool { return w.Name == "tail-100k" })
	for i := range list {
		w := &list[i]
		w.Events, w.Capacity = min(w.Events, 50), min(w.Capacity, 20_000)
		if w.Demand > 0 {
			w.Capacity, w.Demand = 40, 5
		}
	}
	return list
}

// A plan measures a real node under all workloads, and believes no figure of a target that forgets a booking, or of one that does not
// start. It is not parallel: what this process does meanwhile would be charged to the load.
func TestPlan_MeasuresANode(t *testing.T) {
	c := proctest.Start(t, proctest.Config{Nodes: 1, Args: []string{"--log-level=warn", "--consumers=off"}})
	node := c.Members[0]
	pool, err := store.Open(t.Context(), c.Postgres.DSN(), store.PoolOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	users, err := SeedUsers(t.Context(), pool, signer(theSecret), 100)
	if err != nil {
		t.Fatal(err)
	}
	stops, prepared := 0, 0
	target := func(context.Context) (*Target, error) {
		return &Target{
			URL: node.API, Users: users, Database: pool, Processes: Processes{Server: node.Process().PID()},
			Prepare: func(_ context.Context, events []evently.EventID, _ int) error {
				prepared += len(events)
				return nil
			},
			Stop: func(context.Context) error { stops++; return nil },
		}, nil
	}
	ceilingURL := ceiling(t)
	var shown atomic.Int64
	workloads := small()
	plan := &Plan{
		Host: hosts{
			"evently": target,
			CeilingName: func(ctx context.Context) (*Target, error) {
				target, err := target(ctx)
				target.URL, target.Prepare = ceilingURL, nil
				return target, err
			},
			"forgetful": func(ctx context.Context) (*Target, error) {
				target, err := target(ctx)
				target.Storage, target.Prepare = forgetful{&Tables{Pool: pool}}, nil
				return target, err
			},
			"broken": func(context.Context) (*Target, error) { return nil, errors.New("out of paper") },
		},
		Designs:   []Design{{Name: "evently"}, {Name: "absent", Absent: "not installed"}, {Name: CeilingName, Ceiling: true}},
		Workloads: workloads, Connections: []int{4}, Rounds: 2, Warmup: 100 * time.Millisecond, Duration: 300 * time.Millisecond,
		HalfRate: []string{"hot", "flash"}, Discard: true, Seed: 1, Progress: func(Progress) { shown.Add(1) },
	}
	rounds, err := plan.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := 2*2*len(workloads) + 2*2; len(rounds) != want || stops != 9 || shown.Load() == 0 || prepared == 0 {
		t.Errorf("%d rounds, %d stops, %d looks at the progress, %d events prepared; want %d and 9", len(rounds), stops, shown.Load(), prepared, want)
	}
	var order []string
	for i := range rounds {
		r := &rounds[i]
		if name := fmt.Sprintf("%s %d", r.Design, r.Round); !slices.Contains(order, name) {
			order = append(order, name)
		}
		if !r.Audit.Passed() || r.Failure != "" || r.Done <= 0 || len(r.Timeline) == 0 || r.Latency.P50 <= 0 || r.Outcomes["failed"] > 0 {
			t.Errorf("%+v", r)
		}
		if (r.Audit.Skipped != "") != (r.Design == CeilingName) {
			t.Errorf("%s: audit %+v", r.Design, r.Audit)
		}
		// Those that were due, also where the machine is too busy to answer them in time.
		due, want := float64(r.Requests["book"]+r.Unfinished), r.Rate*r.Seconds
		if r.Rate > 0 && math.Abs(due-want) > 0.3*want+5*math.Sqrt(want) {
			t.Errorf("%.0f requests were due in %v s at %.0f/s", due, r.Seconds, r.Rate)
		}
		// It has drainMax to get to those that it could have got to within half of the window.
		if float64(r.Unfinished) > 0.1*want {
			t.Errorf("%d of %.0f scheduled requests were not sent", r.Unfinished, due)
		}
		if r.Design != "evently" {
			continue
		}
		wrote := r.Workload != "read" && r.Workload != "sold-out"
		if wrote && (r.Audit.Acknowledged == 0 || r.Audit.Stored != r.Audit.Acknowledged || r.Commits <= 0) {
			t.Errorf("%s: %+v, %v commits/s", r.Workload, r.Audit, r.Commits)
		}
		// The kernel counts processor time in hundredths of a second, and this small flash sale is over in a few of them.
		usedMin, usedMax := 0.001, 1.2
		if r.Workload == "flash" {
			usedMin, usedMax = 0, 4
		}
		if runtime.GOOS == "linux" && (r.ServerRSS < 10<<20 || r.CPU.Load < 0 || r.CPU.Used < usedMin || r.CPU.Used > usedMax) {
			t.Errorf("%s: %d bytes, %+v", r.Workload, r.ServerRSS, r.CPU)
		}
		if r.Workload == "flash" && (r.Audit.Acknowledged < 40 || r.Outcomes["booked"] != 40 || r.Outcomes["refused"] != 160) {
			t.Errorf("flash sale: %v, %+v, want 40 of 200 to be booked", r.Outcomes, r.Audit)
		}
		if r.Workload == "sold-out" && (r.Audit.Acknowledged != 100 || r.Outcomes["refused"] == 0 || len(r.Outcomes) != 1) {
			t.Errorf("sold out: %v, %+v, want 100 seats to be sold before", r.Outcomes, r.Audit)
		}
	}
	if want := "evently 1, noop 1, noop 2, evently 2"; strings.Join(order, ", ") != want {
		t.Errorf("order %v, want %s", order, want)
	}
	open := 0
	for _, s := range Summaries(rounds) {
		switch {
		case s.Rate > 0:
			open++
			if s.Workload != "hot" || s.OfCeiling != 0 {
				t.Errorf("%+v, want the hot event alone", s)
			}
		case s.OfCeiling <= 0 || s.Rounds != 2 || !s.Passed:
			t.Errorf("%+v", s)
		}
	}
	if open != 2 {
		t.Errorf("%d open loops, want those of 2 designs", open)
	}
	proctest.Verified(t, t.TempDir(), "--database-url="+c.Postgres.DSN())

	plan.Discard = false
	plan.Designs, plan.Workloads, plan.Rounds = []Design{{Name: "forgetful"}, {Name: "broken"}}, workloads[:1], 1
	rounds, err = plan.Run(t.Context())
	if err != nil || len(rounds) != 2 {
		t.Fatalf("%d rounds (%v), want 2", len(rounds), err)
	}
	for _, s := range Summaries(rounds) {
		if s.Passed {
			t.Errorf("%+v passed", s)
		}
	}
	for _, r := range rounds {
		if want := map[string]string{"forgetful": "is not stored", "broken": "out of paper"}[r.Design]; !strings.Contains(strings.Join(r.Audit.Faults, " "), want) {
			t.Errorf("%s: %v, want %q", r.Design, r.Audit.Faults, want)
		}
	}
}

// A system that is known by its API alone is measured and audited as well.
func TestPlan_MeasuresAnAPI(t *testing.T) {
	t.Parallel()
	node := proctest.Up(t, proctest.DataDir(t), "--rate-limit-book=off", "--log-level=warn")
	users, err := RegisterUsers(t.Context(), node.API, 3)
	if err != nil {
		t.Fatal(err)
	}
	tokens := "# tokens\n\n"
	for _, user := range users {
		tokens += "  " + user.Token + "\n"
	}
	if again, err := ReadTokens(strings.NewReader(tokens)); err != nil || !slices.Equal(again, users) {
		t.Errorf("%v (%v), want %v", again, err, users)
	}
	api := &API{URL: node.API, Admin: node.Login(t), Users: users}
	defer apiHTTP.CloseIdleConnections()
	few := slices.DeleteFunc(small(), func(w Workload) bool { return !slices.Contains([]string{"hot", "flash", "tail-1k", "mix"}, w.Name) })
	plan := &Plan{
		Host: api, Designs: []Design{{Name: "evently"}}, Workloads: few, Connections: []int{3}, Rounds: 1,
		Warmup: 50 * time.Millisecond, Duration: 200 * time.Millisecond,
	}
	rounds, err := plan.Run(t.Context())
	if err != nil || len(rounds) != len(plan.Workloads) {
		t.Fatalf("%d rounds (%v), want %d", len(rounds), err, len(plan.Workloads))
	}
	for _, r := range rounds {
		if !r.Audit.Passed() || r.Failure != "" || r.Done <= 0 || r.Audit.Stored == 0 || r.CPU.Server != 0 ||
			r.Audit.Keys == 0 || r.Audit.Keys > keySamplesMax {
			t.Errorf("%+v", r)
		}
	}
	plan.Workloads = plan.Workloads[:1]
	plan.Host = hosts{"evently": func(ctx context.Context) (*Target, error) {
		target, err := api.Start(ctx, "evently")
		target.Storage = forgetful{api}
		return target, err
	}}
	if rounds, err := plan.Run(t.Context()); err != nil || rounds[0].Audit.Lost != 1 || rounds[0].Audit.Miscounted != 1 {
		t.Errorf("%+v (%v), want one to be lost", rounds, err)
	}

	plan.Host = &API{URL: node.API, Admin: api.Admin, Users: []User{{Token: "worthless"}}}
	if rounds, err := plan.Run(t.Context()); err != nil || rounds[0].Audit.Passed() || !strings.Contains(rounds[0].Failure, "nothing was done") {
		t.Errorf("%+v (%v), want no result where nothing was done", rounds, err)
	}
}

func TestReadTokens_RefusesWhatIsNone(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "token", "a.b.c", strings.Repeat("x", 2*tokenLineMax)} {
		if users, err := ReadTokens(strings.NewReader(text)); err == nil {
			t.Errorf("%.20q: %v", text, users)
		}
	}
}

// What is wrong with the block that is thrown away is in every report, and counts as it does of another one.
func TestPlan_KeepsFaultsOfTheBlockThatIsThrownAway(t *testing.T) {
	t.Parallel()
	defer apiHTTP.CloseIdleConnections()
	read, _ := WorkloadNamed("read")
	for _, c := range []struct {
		url, want string
		stop      error // of the first one
	}{
		{"http://127.0.0.1:1", "before the first round: not measured: ", nil},
		{limited(t, "", func(*http.Request) int { return 0 }), "before the first round: not stopped in order: out of paper", errors.New("out of paper")},
	} {
		plan := &Plan{
			Host: hosts{CeilingName: func(context.Context) (*Target, error) {
				stop := c.stop
				c.stop = nil
				return &Target{URL: c.url, Users: []User{{Token: "x"}}, Stop: func(context.Context) error { return stop }}, nil
			}},
			Designs: []Design{{Name: CeilingName, Ceiling: true}}, Workloads: []Workload{read}, Connections: []int{1}, Rounds: 1,
			Duration: 50 * time.Millisecond, Discard: true,
		}
		rounds, err := plan.Run(t.Context())
		if err != nil || len(rounds) != 2 || rounds[0].Round != 0 || rounds[1].Round != 1 {
			t.Fatalf("%+v (%v), want the failed one of the first block and one more", rounds, err)
		}
		r := &Report{Designs: plan.Designs, Workload: plan.Workloads, Rounds: rounds, Summary: Summaries(rounds)}
		for name, write := range map[string]func(io.Writer) error{
			"table": r.WriteTable, "Markdown": r.WriteMarkdown, "page": r.WriteHTML, "JSON": r.WriteJSON,
		} {
			if got := text(t, write); !strings.Contains(strings.Join(strings.Fields(got), " "), strings.TrimSpace(c.want)) {
				t.Errorf("%s: no %q in\n%s", name, c.want, got)
			}
		}
		if faults := r.Faults(); len(faults) != 1 {
			t.Errorf("faults of a ceiling: %q", faults)
		}
		r.Designs = []Design{{Name: CeilingName}} // neither a ceiling nor durable
		if faults := r.Faults(); len(faults) != 0 {
			t.Errorf("faults of what is not durable: %q", faults)
		}
	}
}

func TestPlan_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stopped := errors.New("stopped with an error")
	plan := &Plan{
		Host: hosts{"evently": func(context.Context) (*Target, error) {
			cancel()
			return &Target{URL: "http://127.0.0.1:1", Stop: func(ctx context.Context) error { return errors.Join(stopped, ctx.Err()) }}, nil
		}},
		Designs: []Design{{Name: "evently"}}, Workloads: small(), Connections: []int{1, 2}, Rounds: 3, HalfRate: []string{"hot"},
	}
	rounds, err := plan.Run(ctx)
	if len(rounds) != 0 || !errors.Is(err, context.Canceled) || !errors.Is(err, stopped) {
		t.Errorf("%d rounds, %v", len(rounds), err)
	}
}
