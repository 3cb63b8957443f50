package proctest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

const (
	askedAgainMax  = 200 // promises that an audit asks for once more, drawn at random: each costs two requests
	differencesMax = 20  // shown of those found
)

// Verified runs `evently verify` on a data directory and expects no difference.
func Verified(t testing.TB, dataDir string, args ...string) {
	t.Helper()
	verify := Launch(t, dataDir, append([]string{"verify"}, args...)...)
	if exit := verify.Exit(t, UpMax); exit != ExitOK || !strings.Contains(verify.Output(), " 0 differences") {
		t.Errorf("verify: exit %d\n%s", exit, verify.Output())
	}
}

// Audit closes the crowd and compares all that it was promised with what is there: the rows, by SQL that owes nothing to the
// program's own; the answers of the nodes that are ready; and the journal, with `evently verify`. The crowd can be opened again.
func (c *Cluster) Audit(t testing.TB, crowd *Crowd) {
	t.Helper()
	crowd.Close()
	began := time.Now()
	if crowd.acknowledged.Load() == 0 {
		t.Error("nothing was booked: the audit shows nothing")
	}
	ready := c.readyMembers(t)
	random := rand.Perm(len(crowd.promises))
	if crowd.limited {
		random = nil
	}
	for i, at := range random[:min(len(random), askedAgainMax)] {
		again := *crowd.promises[at]
		again.Client = &Client{HTTP: crowd.load, API: ready[i%len(ready)].API, Token: again.Client.Token}
		again.Settle(t)
	}

	conn, err := pgx.Connect(t.Context(), c.Postgres.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	differences, heads, err := compare(t.Context(), conn, crowd.Events, crowd.promises)
	if err != nil {
		t.Fatal(err)
	}
	for _, difference := range differences[:min(len(differences), differencesMax)] {
		t.Error(difference)
	}
	if left := len(differences) - differencesMax; left > 0 {
		t.Errorf("and %d differences more", left)
	}
	for _, m := range ready {
		anybody := &Client{HTTP: crowd.load, API: m.API}
		for _, h := range heads {
			Eventually(t, UpMax, func() error { // a node that does not own the event may be a second behind
				answer, err := anybody.Send(t.Context(), "GET", h.path()+"/availability", "", "")
				if err != nil || answer.Status != 200 {
					return fmt.Errorf("%s at node %d: %d %s (%w)", h.path(), m.Number, answer.Status, answer.Body, err)
				}
				if got := answer.Seats(t); got.Held != sum(h.held) || got.Booked != sum(h.booked) || got.Capacity != sum(h.capacity) {
					return fmt.Errorf("node %d says %+v of an event with the head %+v", m.Number, got, h)
				}
				return nil
			})
		}
	}
	Verified(t, DataDir(t), "--database-url="+c.Postgres.DSN())
	t.Logf("audit of %d promises within %s; up to now %v", len(crowd.promises), time.Since(began).Round(time.Millisecond), crowd.Count())
}

func (c *Cluster) readyMembers(t testing.TB) (ready []*Member) {
	t.Helper()
	Eventually(t, UpMax, func() error {
		err := errors.New("no node")
		for _, m := range c.Members {
			if err = m.Probe(t.Context(), "/readyz"); err == nil {
				ready = append(ready, m)
			}
		}
		if len(ready) > 0 {
			return nil
		}
		return err
	})
	return ready
}

func sum(seats []int32) (total int) {
	for _, n := range seats {
		total += int(n)
	}
	return total
}

// compare returns how the rows of events differ from what clients were promised and from each other, and the heads. All
// reservations of the events have to be promised.
func compare(ctx context.Context, db reader, events []string, promises []*Promise) (differences []string, heads []*head, err error) {
	a := audit{heads: make(map[int64]*head), rows: make(map[string]*row)}
	if err := a.read(ctx, db, events); err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	a.comparePromises(promises)
	a.compareKeys()
	a.compareSums()
	for _, path := range events {
		heads = append(heads, a.heads[eventKey(path)])
	}
	return a.differences, heads, nil
}

func (a *audit) differ(format string, args ...any) {
	a.differences = append(a.differences, fmt.Sprintf(format, args...))
}

// comparePromises holds every promise against its row, and every row against the promises.
func (a *audit) comparePromises(promises []*Promise) {
	promised := make(map[string]*Promise)
	for _, p := range promises {
		if before := promised[p.ID]; before != nil {
			a.differ("reservation %s was promised for the keys %s and %s", p.ID, before.Key, p.Key)
		}
		promised[p.ID] = p
		r := a.rows[p.ID]
		if r == nil {
			a.differ("reservation %s, key %s, was acknowledged and is lost", p.ID, p.Key)
			continue
		}
		user, want := userOf(p)
		if r.path() != p.Event || r.user != user || r.key != want || sumOf(r.items) != p.Quantity {
			a.differ("reservation %s, key %s, is %+v; promised: %+v of user %d with the key %x", p.ID, p.Key, r, p, user, want)
		}
		if !p.allowed(r.status.String()) || p.Confirmed && !r.confirmed {
			a.differ("reservation %s, key %s, is %s (ever confirmed: %v); acknowledged: %+v", p.ID, p.Key, r.status, r.confirmed, p)
		}
	}
	for id, r := range a.rows {
		if promised[id] == nil {
			a.differ("reservation %s was promised to nobody: %+v", id, r)
		}
	}
}

func sumOf(items []item) (quantity int) {
	for _, i := range items {
		quantity += i.Quantity
	}
	return quantity
}

// compareKeys looks for a key that has two reservations.
func (a *audit) compareKeys() {
	type scope struct {
		event int64
		key   [16]byte
	}
	seen := make(map[scope]string)
	for id, r := range a.rows {
		at := scope{r.event, r.key}
		if other, twice := seen[at]; twice {
			a.differ("key %x of event %s has the reservations %s and %s", r.key, r.path(), other, id)
		}
		seen[at] = id
	}
}

// compareSums adds up the rows of each event and holds the sums against its head and its capacity.
func (a *audit) compareSums() {
	held, booked := make(map[int64][]int32), make(map[int64][]int32)
	for event, h := range a.heads {
		held[event], booked[event] = make([]int32, len(h.capacity)), make([]int32, len(h.capacity))
	}
	for id, r := range a.rows {
		seats := held
		if r.status == evently.Confirmed {
			seats = booked
		}
		for _, i := range r.items {
			if i.Tier < 0 || i.Tier >= len(seats[r.event]) {
				a.differ("reservation %s has seats of tier %d, which its event has not", id, i.Tier)
			} else if r.status.Live() {
				seats[r.event][i.Tier] += int32(i.Quantity)
			}
		}
	}
	for event, h := range a.heads {
		for tier, capacity := range h.capacity {
			if h.held[tier] != held[event][tier] || h.booked[tier] != booked[event][tier] {
				a.differ("event %s, tier %d: the rows hold %d and have booked %d, the head says %+v",
					h.path(), tier, held[event][tier], booked[event][tier], h)
			}
			if taken := held[event][tier] + booked[event][tier]; taken > capacity {
				a.differ("event %s, tier %d: %d seats sold of %d", h.path(), tier, taken, capacity)
			}
		}
	}
}

// compareEntry takes the next entry of an event's journal, by seq.
func (a *audit) compareEntry(event, seq, epoch int64) {
	h := a.heads[event]
	if seq != h.entries+1 {
		a.differ("event %s: entry %d follows entry %d in the journal", h.path(), seq, h.entries)
	}
	if epoch < h.entryEpoch || epoch > h.epoch {
		a.differ("event %s: entry %d has the epoch %d after %d; the head has %d", h.path(), seq, epoch, h.entryEpoch, h.epoch)
	}
	h.entries, h.entryEpoch = seq, epoch
}

// compareEnd is for the end of all journals.
func (a *audit) compareEnd() {
	for _, h := range a.heads {
		if h.entries != h.seq {
			a.differ("event %s: the journal ends with entry %d, the head says %d", h.path(), h.entries, h.seq)
		}
	}
}

// keyBytes is how a key stands in a row.
func keyBytes(hi, lo uint64) (text [16]byte) {
	binary.BigEndian.PutUint64(text[:8], hi)
	binary.BigEndian.PutUint64(text[8:], lo)
	return text
}
