package messages

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

func TestDispatcher_SendsOnceWhatIsTaken(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.add(1, 50)
		w.queue.add(2, 1)
		after(2 * time.Second)
		for id, want := range map[evently.WebhookID]int{1: 50, 2: 1} {
			got := w.requests(id)
			ids := make(map[string]bool)
			for _, r := range got {
				ids[r.id] = true
			}
			if len(got) != want || len(ids) != want || w.queue.count(id, evently.DeliveryDone) != want {
				t.Errorf("webhook %d: %d requests, %d ids, %d delivered; want %d", id, len(got), len(ids), w.queue.count(id, evently.DeliveryDone), want)
			}
		}
		if most := w.mostOf(1); most > workersMax || w.attempts(delivered) != 51 {
			t.Errorf("%d at a time, %d delivered", most, w.attempts(delivered))
		}
		after(2 * lanesKeptFor)
		w.Dispatcher.mu.Lock()
		defer w.Dispatcher.mu.Unlock()
		if len(w.lanes) != 0 {
			t.Errorf("%d lanes are kept", len(w.lanes))
		}
	})
}

// Ten attempts in three days by the schedule of Standard Webhooks, all with one id; then it has failed for good.
func TestDispatcher_TriesForThreeDays(t *testing.T) {
	inWorld(t, 5*time.Second, func(t *testing.T, w *world) {
		w.on(1, code(500))
		w.queue.add(1, 1)
		began := time.Now()
		after(4 * 24 * time.Hour)
		got := w.requests(1)
		var gaps []time.Duration
		for i := range got {
			if got[i].id != w.queue.list()[0].ID.String() {
				t.Errorf("attempt %d: %s", i, got[i].id)
			}
			if i > 0 {
				gaps = append(gaps, got[i].at.Sub(got[i-1].at))
			}
		}
		if len(gaps) != len(retryDelays)+1 {
			t.Fatalf("gaps %v", gaps)
		}
		for i, want := range retryDelays {
			if slack := want/10 + 6*time.Second; gaps[i] < want-slack || gaps[i] > want+slack {
				t.Errorf("gap %d is %s, want %s", i, gaps[i], want)
			}
		}
		if last := got[len(got)-1].at.Sub(began); last < evently.WebhookGiveUp || last > evently.WebhookGiveUp+6*time.Second {
			t.Errorf("the last attempt was after %s, want %s", last, evently.WebhookGiveUp)
		}
		d := w.queue.list()[0]
		if d.Status != evently.DeliveryFailed || !d.DueAt.IsZero() || len(d.Attempts) != 10 {
			t.Errorf("%+v", d)
		}
		if ended, _ := w.queue.state(1); ended != evently.WebhookActive {
			t.Errorf("the webhook is %s", ended)
		}
	})
}

func TestDispatcher_RecoversWithItsReceiver(t *testing.T) {
	inWorld(t, 20*time.Second, func(t *testing.T, w *world) {
		w.on(1, code(502))
		w.queue.add(1, 20)
		after(26 * time.Hour)
		if n := w.queue.count(1, evently.DeliveryPending); n != 20 {
			t.Fatalf("%d wait", n)
		}
		if _, failing := w.queue.state(1); !failing {
			t.Error("the webhook does not fail")
		}
		if got := testutil.ToFloat64(w.metrics.breakers); got > 1 {
			t.Errorf("%v breakers are open", got)
		}
		w.on(1, nil)
		after(26 * time.Hour)
		if n := w.queue.count(1, evently.DeliveryDone); n != 20 {
			t.Errorf("%d delivered", n)
		}
		if _, failing := w.queue.state(1); failing {
			t.Error("the webhook fails")
		}
		if got := testutil.ToFloat64(w.metrics.breakers); got != 0 {
			t.Errorf("%v breakers are open", got)
		}
	})
}

func TestDispatcher_FiveDaysOfFailuresDisable(t *testing.T) {
	inWorld(t, time.Minute, func(t *testing.T, w *world) {
		w.on(1, code(500))
		began := time.Now()
		ended := evently.WebhookActive
		for ended == evently.WebhookActive && time.Since(began) < 7*24*time.Hour {
			w.queue.add(1, 1)
			after(time.Hour)
			ended, _ = w.queue.state(1)
		}
		if took := time.Since(began); ended != evently.WebhookDisabled || took < evently.WebhookFailingMax || took > evently.WebhookFailingMax+2*time.Hour {
			t.Errorf("%s after %s", ended, took)
		}
		sent := len(w.requests(1))
		w.queue.add(1, 1)
		after(24 * time.Hour)
		if more := len(w.requests(1)); more != sent {
			t.Errorf("%d requests after it was disabled", more-sent)
		}
		if n := testutil.ToFloat64(w.metrics.disabled.WithLabelValues("failing")); n != 1 || !strings.Contains(w.logs.String(), "reason=failing") {
			t.Errorf("counted %v, log %s", n, w.logs)
		}
	})
}

func TestDispatcher_GoneDisablesAtOnce(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.on(1, code(410))
		w.queue.add(1, 100)
		after(time.Minute)
		if ended, _ := w.queue.state(1); len(w.requests(1)) > workersMax || ended != evently.WebhookGone {
			t.Errorf("%d requests, %s", len(w.requests(1)), ended)
		}
		if n := w.queue.count(1, evently.DeliveryFailed); n != len(w.requests(1)) {
			t.Errorf("%d failed of %d that were sent", n, len(w.requests(1)))
		}
		if n := testutil.ToFloat64(w.metrics.disabled.WithLabelValues("gone")); n < 1 || !strings.Contains(w.logs.String(), "reason=gone") {
			t.Errorf("counted %v, log %s", n, w.logs)
		}
	})
}

func TestDispatcher_RetryAfterHoldsTheWebhook(t *testing.T) {
	for _, test := range []struct {
		header    string
		min, hold time.Duration // for the first message, for all others
	}{
		{"600", 10 * time.Minute, 10 * time.Minute},
		{"14400", 4 * time.Hour, laneHoldMax},
		{"9999999", retryAfterMax, laneHoldMax},
	} {
		inWorld(t, 5*time.Second, func(t *testing.T, w *world) {
			w.on(1, code(429, "Retry-After", test.header))
			w.queue.add(1, 1)
			after(7 * time.Second)
			w.on(1, nil)
			w.queue.add(1, 3)
			began := time.Now()
			after(30 * time.Hour)
			got := w.requests(1)
			if len(got) != 5 {
				t.Fatalf("%s: %d requests", test.header, len(got))
			}
			if held := got[1].at.Sub(began); held < test.hold-8*time.Second || held > test.hold+8*time.Second {
				t.Errorf("%s: others were sent after %s, want %s", test.header, held, test.hold)
			}
			first := w.queue.list()[0].Attempts
			if gap := first[1].At.Sub(first[0].At); gap < test.min || gap > test.min+time.Minute {
				t.Errorf("%s: the first was sent again after %s, want %s", test.header, gap, test.min)
			}
		})
	}
}

// What a dead receiver costs: a few attempts, and then one in each pause of the breaker.
func TestDispatcher_DeadReceiverIsLeftAlone(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.on(1, code(500))
		w.queue.add(1, 1000)
		after(10 * time.Minute)
		most := breakerFailures + workersMax + int(10*time.Minute/breakerPauseDefault)
		if n := len(w.requests(1)); n > most || n < most/2 {
			t.Errorf("%d requests in ten minutes, want at most %d", n, most)
		}
		if got := testutil.ToFloat64(w.metrics.breakers); got != 1 {
			t.Errorf("%v breakers are open", got)
		}
	})
}

// Receivers that hang, more than there are slots, and slow ones: another one gets all of its messages at once.
func TestDispatcher_OthersDoNotWaitForSlowReceivers(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		const hung, slow, healthy = 40, 20, 1000
		for id := range evently.WebhookID(hung) {
			w.on(id+1, hang)
			w.queue.add(id+1, 100)
		}
		for id := range evently.WebhookID(slow) {
			w.on(100+id, func(http.ResponseWriter, *http.Request) { after(14 * time.Second) })
			w.queue.add(100+id, 100)
		}
		after(time.Minute) // they have taken all that they can get
		for range 5 {
			w.queue.add(healthy, 200)
			after(3 * time.Second)
			if n := w.queue.count(healthy, evently.DeliveryPending); n != 0 {
				t.Errorf("%d of 200 wait after 3 s", n)
			}
			after(20 * time.Second)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for host, most := range w.most {
			if most > workersMax {
				t.Errorf("%d at a time to %s", most, host)
			}
		}
		if w.attempts(faultTimeout) < hung*breakerFailures {
			t.Errorf("%d timeouts", w.attempts(faultTimeout))
		}
	})
}

func TestDispatcher_MoreWebhooksThanSlotsTakeTurns(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		const webhooks = slotsMax * 3 / 2
		for id := range evently.WebhookID(webhooks) {
			w.on(id+1, func(http.ResponseWriter, *http.Request) { after(time.Second) })
			w.queue.add(id+1, 30)
		}
		after(30 * time.Second)
		least, most := 30, 0
		for id := range evently.WebhookID(webhooks) {
			n := w.queue.count(id+1, evently.DeliveryDone)
			least, most = min(least, n), max(most, n)
		}
		if least < 10 {
			t.Errorf("after half a minute one webhook has %d of 30 messages, another one %d", least, most)
		}
	})
}

// Sent, and the outcome not recorded, as when the node dies: it is sent again with the same id, and counted once.
func TestDispatcher_WhatIsNotRecordedIsSentAgain(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.set(func() { w.queue.failRecord = errors.New("connection lost") })
		w.queue.add(1, 3)
		after(10 * time.Second)
		if n := len(w.requests(1)); n != 3 || w.queue.count(1, evently.DeliveryPending) != 3 {
			t.Fatalf("%d requests, %d wait", n, w.queue.count(1, evently.DeliveryPending))
		}
		w.queue.set(func() { w.queue.failRecord = nil })
		after(claimFor)
		times := make(map[string]int)
		for _, r := range w.requests(1) {
			times[r.id]++
		}
		for _, d := range w.queue.list() {
			if times[d.ID.String()] != 2 || d.Status != evently.DeliveryDone || len(d.Attempts) != 1 {
				t.Errorf("%s was received %d times: %+v", d.ID, times[d.ID.String()], d)
			}
		}
		if len(times) != 3 {
			t.Errorf("received %v", times)
		}
	})
}

func TestDispatcher_BacklogIsWorkedOff(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.set(func() { w.queue.backlog[1] = 95 })
		after(15 * time.Second)
		if n := w.queue.count(1, evently.DeliveryDone); n != 95 || len(w.requests(1)) != 95 {
			t.Errorf("%d delivered, %d requests", n, len(w.requests(1)))
		}
	})
}

func TestDispatcher_OutlivesItsDatabase(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.set(func() { w.queue.failLanes = errors.New("no route") })
		w.queue.add(1, 1)
		after(time.Minute)
		if n := strings.Count(w.logs.String(), "no route"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		w.queue.set(func() { w.queue.failLanes = nil })
		after(2 * time.Second)
		if w.queue.count(1, evently.DeliveryDone) != 1 {
			t.Error("not delivered")
		}
	})
}

// Told to end, it waits for attempts under way, though not for ever, and gives back what it abandons.
func TestDispatcher_Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Second)
		w.on(1, func(http.ResponseWriter, *http.Request) { after(stopGrace / 2) })
		w.on(2, hang)
		w.queue.add(1, 3)
		w.queue.add(2, 3)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		began := time.Now()
		w.Run(ctx)
		if took := time.Since(began); took < 1500*time.Millisecond+stopGrace || took > 2*time.Second+stopGrace {
			t.Errorf("took %s", took)
		}
		if done, wait := w.queue.count(1, evently.DeliveryDone), w.queue.count(2, evently.DeliveryPending); done != 3 || wait != 3 {
			t.Errorf("%d delivered, %d wait", done, wait)
		}
		for _, d := range w.queue.list() {
			if d.Webhook == 2 && (d.DueAt.After(time.Now()) || len(d.Attempts) != 0) {
				t.Errorf("abandoned and not given back: %+v", d)
			}
		}
		if n := testutil.ToFloat64(w.metrics.inFlight); n != 0 || w.slots != 0 || w.probes != 0 {
			t.Errorf("%v in flight, %d slots, %d probes", n, w.slots, w.probes)
		}
	})
}

func TestDispatcher_TellsWhatWaits(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.add(1, 7)
		after(loadPeriod + time.Second)
		for name, got := range map[string]float64{
			"pending 7": testutil.ToFloat64(w.metrics.pending), "backlogs 2": testutil.ToFloat64(w.metrics.backlogs),
			"active 3": testutil.ToFloat64(w.metrics.webhooks.WithLabelValues("active")),
			"ended 4":  testutil.ToFloat64(w.metrics.webhooks.WithLabelValues("ended")),
		} {
			if !strings.HasSuffix(name, fmt.Sprintf(" %v", got)) {
				t.Errorf("%s: got %v", name, got)
			}
		}
	})
}

func TestNextAttempt(t *testing.T) {
	now := time.Date(2027, 3, 28, 0, 30, 0, 0, time.UTC)
	giveUp := now.Add(evently.WebhookGiveUp)
	for _, test := range []struct {
		tried      int
		retryAfter time.Duration
		chance     float64
		want       time.Duration
	}{
		{1, 0, 0.5, 5 * time.Second},
		{1, 0, 0, 4500 * time.Millisecond},
		{1, 0, 1, 5500 * time.Millisecond},
		{2, 0, 0.5, 5 * time.Minute},
		{8, 0, 0.5, 20 * time.Hour},
		{9, 0, 0.5, evently.WebhookGiveUp},
		{100, 0, 0.5, evently.WebhookGiveUp},
		{0, 0, 0.5, 5 * time.Second},
		{1, time.Minute, 0.5, time.Minute},
		{4, time.Minute, 0.5, 2 * time.Hour},
		{1, 1000 * time.Hour, 0.5, retryAfterMax},
	} {
		d := &evently.Delivery{Tried: test.tried, GiveUpAt: giveUp}
		if got := nextAttempt(d, now, test.retryAfter, test.chance).Sub(now); got != test.want {
			t.Errorf("%+v: got %s", test, got)
		}
	}
	d := &evently.Delivery{Tried: 5, GiveUpAt: giveUp}
	if got := nextAttempt(d, giveUp.Add(-time.Hour), 0, 0.5); !got.Equal(giveUp) {
		t.Errorf("got %s, want the end %s", got, giveUp)
	}
}
