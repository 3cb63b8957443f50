package soak

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// steady makes samples of a node that takes what it needs and no more, with noise: 10 minutes of 1,000 reservations a second.
func steady(change func(s *Sample)) (samples []Sample) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(of float64) float64 { return of * (random.Float64() - 0.5) }
	for at := time.Duration(0); at <= 10*time.Minute; at += 5 * time.Second {
		made := 1000 * at.Seconds()
		warm := min(at.Minutes(), 2)
		s := Sample{
			At: at, Reservations: made, Heap: 40e6 + 10e6*warm + noise(4e6) + 130*made,
			Resident: 120e6 + 20e6*warm + noise(20e6) + 200*made, Goroutines: 300 + noise(40),
		}
		change(&s)
		samples = append(samples, s)
	}
	return samples
}

func TestVerdict_TellsALeakFromWhatIsRemembered(t *testing.T) {
	limits := Limits{Heap: 0.05, Resident: 0.05, Goroutines: 0.05}
	for _, c := range []struct {
		name, want string
		change     func(s *Sample)
	}{
		{"nothing leaks", "", func(*Sample) {}},
		{"it shrinks", "", func(s *Sample) { s.Heap -= s.Reservations * 100 }},
		{"the heap", "heap (MB) grew by ", func(s *Sample) { s.Heap += s.Reservations * 100 }},
		{"memory that is no heap", "resident (MB) grew by ", func(s *Sample) { s.Resident += s.Reservations * 300 }},
		{"a goroutine every ten seconds", "goroutines grew by 3", func(s *Sample) { s.Goroutines += s.At.Seconds() / 10 }},
		{"heap with time, of an idle node", "heap (MB) grew by ", func(s *Sample) {
			s.Heap, s.Reservations = 40e6+s.At.Seconds()*20e3, 0
		}},
	} {
		err := Verdict(steady(c.change), limits)
		if (err != nil) != (c.want != "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	few := steady(func(*Sample) {})[:SamplesMin-1]
	if err := Verdict(few, limits); err == nil {
		t.Errorf("a verdict of %d samples", len(few))
	}
}
