package bench

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Load is a closed loop: each connection sends its next booking when the last one is answered.
type Load struct {
	Addr        string   // host:port of the API
	Event       string   // id of the event
	Tokens      []string // of the users who book; connections take turns
	Connections int
	Duration    time.Duration
}

// Result is what the clients of a Load saw.
type Result struct {
	Booked  int // answered 201
	Refused int // answered 409: sold out
	Failed  int // any other answer
	Elapsed time.Duration
	Worst   string // one of the other answers
}

// PerSecond is the rate of acknowledged bookings.
func (r Result) PerSecond() float64 { return float64(r.Booked) / r.Elapsed.Seconds() }

// Run books until the time is over and waits for the last answers.
func (l *Load) Run() (Result, error) {
	var booked, refused, failed atomic.Int64
	var worst atomic.Value
	errs := make(chan error, 2*l.Connections) // a request and the end of its connection
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	var ends time.Time
	for n := range l.Connections {
		ready.Add(1)
		done.Go(func() {
			client, err := Dial(l.Addr)
			ready.Done()
			if err != nil {
				errs <- err
				return
			}
			book := NewBook(l.Addr, l.Event, l.Tokens[n%len(l.Tokens)])
			<-start
			for key := uint64(n) << 32; time.Now().Before(ends); key++ {
				status, body, err := client.Do(book.With(key))
				if err != nil {
					errs <- err
					break
				}
				switch status {
				case 201:
					booked.Add(1)
				case 409:
					refused.Add(1)
				default:
					failed.Add(1)
					worst.Store(fmt.Sprintf("%d %s", status, body))
				}
			}
			if err := client.Close(); err != nil {
				errs <- err
			}
		})
	}
	ready.Wait()
	began := time.Now()
	ends = began.Add(l.Duration)
	close(start)
	done.Wait()
	result := Result{Booked: int(booked.Load()), Refused: int(refused.Load()), Failed: int(failed.Load()), Elapsed: time.Since(began)}
	result.Worst, _ = worst.Load().(string)
	select {
	case err := <-errs:
		return result, err
	default:
		return result, nil
	}
}
