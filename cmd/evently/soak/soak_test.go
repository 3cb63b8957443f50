package soak

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/evently/evently/cmd/evently/proctest"
)

var (
	soak   = flag.Duration("soak", 8*time.Second, "how long a node works")
	visits = flag.Int("visits", 200, "visits a second, each of about three requests")
)

// A whole soak is long enough for small limits. In a short one the node still fills its pools and caches: it shows
// leaks that are fast, goroutines and reservations that stay.
const wholeSoak = 5 * time.Minute

func limits(during time.Duration) Limits {
	if during >= wholeSoak {
		return Limits{Heap: 0.05, Resident: 0.05, Goroutines: 0.05}
	}
	return Limits{Heap: 0.4, Resident: 0.4, Goroutines: 0.4}
}

// A node under a load of holds that expire, confirmations, cancellations, repeats and reads takes no more memory and goroutines after some
// time, and in the end no seat is taken.
func TestSoak(t *testing.T) {
	dir := proctest.DataDir(t)
	node := proctest.Up(t, dir, "--log-level=warn", "--access-ttl=12h", "--rate-limit-book=off")
	s := &soaking{t: t, node: &node.Server, pace: rate.NewLimiter(rate.Limit(*visits), 1)}
	const events, users, clients = 20, 8, 16
	admin := s.node.Client(t, s.node.Login(t))
	for i := range events {
		name := fmt.Sprint("event-", i)
		event := admin.Must(t, 201, "POST", "/admin/events", name, proctest.EventBody(name, capacity, holdTTL)).Seats(t)
		s.events = append(s.events, "/events/"+event.ID)
	}
	load := proctest.Plain(t)
	whole, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(whole, *soak+samplesLate)
	defer cancel()
	var crowd sync.WaitGroup
	tokens := s.node.Users(t, users)
	idle := s.node.Metric(t, "go_goroutines")
	for number := range clients {
		visitor := &visitor{soaking: s, number: number, client: &proctest.Client{HTTP: load, API: s.node.API, Token: tokens[number%users]}}
		crowd.Go(func() { visitor.run(ctx) })
	}
	samples := s.sample(ctx)
	cancel()
	crowd.Wait()
	if whole.Err() != nil {
		t.Fatalf("interrupted: %v", context.Cause(whole)) // and so the node and its directory go
	}
	for i := range samples {
		if i%max(1, len(samples)/20) == 0 || i == len(samples)-1 {
			sample := &samples[i]
			t.Logf("%6v: heap %.1f MB, resident %.1f MB, %.0f goroutines, %.0f reservations", sample.At.Round(time.Second), sample.Heap/1e6,
				sample.Resident/1e6, sample.Goroutines, sample.Reservations)
		}
	}
	t.Logf("%d visits, %d reservations, %d requests without a good answer", s.visits.Load(), s.made.Load(), s.failed.Load())
	if made, failed := s.made.Load(), s.failed.Load(); made == 0 || failed > made/100 {
		t.Errorf("%d reservations and %d failures are no load to tell anything by", made, failed)
	}
	if err := Verdict(samples, limits(*soak)); err != nil {
		t.Error(err)
	}
	s.returnsToRest(idle)
	node.Signal(t, syscall.SIGTERM)
	if exit := node.Exit(t, proctest.StopMax); exit != proctest.ExitOK {
		t.Errorf("exit %d\n%s", exit, node.Output())
	}
	proctest.Verified(t, dir)
}

const (
	capacity    = 100_000
	holdTTL     = 2 * time.Second
	keptMax     = 20 // bookings that a visitor has at a time
	samplesMost = 120
	samplesLate = 2 * time.Minute        // beyond the soak
	sampleMin   = 400 * time.Millisecond // between two samples: each collects garbage
)

// soaking is a node at work.
type soaking struct {
	t      *testing.T
	node   *proctest.Server
	events []string
	pace   *rate.Limiter

	visits, made, failed atomic.Int64
}

// sample looks at the node again and again while it works: until the soak is over, or later where a busy machine made few samples.
func (s *soaking) sample(ctx context.Context) (samples []Sample) {
	began := time.Now()
	tick := time.NewTicker(max(sampleMin, *soak/samplesMost))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return samples
		case <-tick.C:
		}
		sample, err := s.look(ctx)
		switch {
		case err == nil:
			sample.At = time.Since(began)
			samples = append(samples, sample)
		case ctx.Err() == nil:
			s.t.Errorf("sample: %v", err)
		}
		if time.Since(began) >= *soak && len(samples) >= SamplesMin {
			return samples
		}
	}
}

func (s *soaking) look(ctx context.Context) (sample Sample, err error) {
	if err := s.node.CollectGarbage(ctx); err != nil {
		return sample, err
	}
	sample.Reservations = float64(s.made.Load())
	var goal, percent float64
	for _, metric := range []struct {
		name string
		into *float64
	}{
		{"go_memstats_next_gc_bytes", &goal},
		{"go_gc_gogc_percent", &percent},
		{"process_resident_memory_bytes", &sample.Resident},
		{"go_goroutines", &sample.Goroutines},
	} {
		if *metric.into, err = s.node.ReadMetric(ctx, metric.name); err != nil {
			return sample, err
		}
	}
	sample.Heap = goal / (1 + percent/100) // what was left by the last collection, without what was made since
	return sample, nil
}

// restSlack is how many goroutines more than before the load may stay: of connections to Postgres and of workers that wait.
const restSlack = 100

// returnsToRest waits until no seat is taken and the goroutines have gone.
func (s *soaking) returnsToRest(idle float64) {
	s.t.Helper()
	client := s.node.Client(s.t, "")
	proctest.Eventually(s.t, proctest.UpMax, func() error {
		for _, event := range s.events {
			seats := client.Must(s.t, 200, "GET", event+"/availability", "", "").Seats(s.t)
			if seats.Available != capacity || seats.Held != 0 || seats.Booked != 0 {
				return fmt.Errorf("%s: %+v after the last hold ended", event, seats)
			}
		}
		goroutines, err := s.node.ReadMetric(s.t.Context(), "go_goroutines")
		if err == nil && goroutines > idle+restSlack {
			err = fmt.Errorf("%.0f goroutines, %.0f before the load", goroutines, idle)
		}
		return err
	})
}

// visitor books, and confirms, cancels, repeats or forgets.
type visitor struct {
	*soaking
	number int
	client *proctest.Client
	kept   []string // bookings, oldest first
}

func (v *visitor) run(ctx context.Context) {
	random := rand.New(rand.NewPCG(uint64(v.number), 7))
	for n := 0; v.pace.Wait(ctx) == nil; n++ {
		v.visit(fmt.Sprintf("visitor-%d-%d", v.number, n), v.events[random.IntN(len(v.events))], random)
		v.visits.Add(1)
	}
	for tries := 0; len(v.kept) > 0 && tries < 10*keptMax; tries++ {
		v.cancelOldest()
	}
}

// visit is not interrupted when the time is over, so that what it left is known.
func (v *visitor) visit(key, event string, random *rand.Rand) {
	const book = `{"quantity":1}`
	held, ok := v.send(201, "POST", event+"/book", key, book)
	if !ok {
		return // if there is a hold, it ends
	}
	v.made.Add(1)
	id := held.Seats(v.t).ID
	switch fate := random.IntN(10); {
	case fate < 2: // forgotten
	case fate < 3:
		v.send(201, "POST", event+"/book", key, book)
	case fate < 4:
		v.send(204, "DELETE", "/reservations/"+id, "", "")
	default:
		v.send(200, "POST", "/reservations/"+id+"/confirm", "", "")
		v.kept = append(v.kept, id) // whether or not there was an answer
	}
	if random.IntN(3) == 0 {
		v.send(200, "GET", event, "", "")
		v.send(200, "GET", event+"/availability", "", "")
	}
	if random.IntN(20) == 0 {
		v.send(200, "GET", "/bookings", "", "")
	}
	if len(v.kept) >= keptMax {
		v.cancelOldest()
	}
}

// cancelOldest keeps the booking when the node does not say that it has ended.
func (v *visitor) cancelOldest() {
	if answer, ok := v.send(200, "POST", "/bookings/"+v.kept[0]+"/cancel", "", ""); ok || answer.Status == 409 || answer.Status == 410 {
		v.kept = v.kept[1:]
	}
}

func (v *visitor) send(want int, method, path, key, body string) (proctest.Answer, bool) {
	answer, err := v.client.Send(v.t.Context(), method, path, key, body)
	if err == nil && answer.Status != want {
		err = errors.New(string(answer.Body))
	}
	if err != nil {
		if v.failed.Add(1) <= complaintsMax {
			v.t.Logf("%s %s: status %d, %v", method, path, answer.Status, err)
		}
		return answer, false
	}
	return answer, true
}

const complaintsMax = 10 // logged
