package messages

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/evently/evently"
)

// memoryQueue is an evently.WebhookQueue. Deliveries have URLs http://<webhook>.example.
type memoryQueue struct {
	mu         sync.Mutex
	deliveries []*evently.Delivery
	ended      map[evently.WebhookID]evently.WebhookEnd
	failing    map[evently.WebhookID]time.Time
	backlog    map[evently.WebhookID]int // deliveries that Refill makes
	failLanes  error
	failRecord error
	looks      int
}

var _ evently.WebhookQueue = (*memoryQueue)(nil)

func newMemoryQueue() *memoryQueue {
	return &memoryQueue{
		ended: make(map[evently.WebhookID]evently.WebhookEnd), failing: make(map[evently.WebhookID]time.Time),
		backlog: make(map[evently.WebhookID]int),
	}
}

// add queues deliveries that are due now.
func (q *memoryQueue) add(id evently.WebhookID, count int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range count {
		q.addOne(id)
	}
}

func (q *memoryQueue) addOne(id evently.WebhookID) {
	now, seq := time.Now(), uint64(len(q.deliveries)+1)
	q.deliveries = append(q.deliveries, &evently.Delivery{
		ID: evently.NewDeliveryID(id, 1, seq), Webhook: id, Type: evently.WebhookEventUpdated, Event: 1, Seq: seq,
		Payload: fmt.Appendf(nil, `{"seq":%d}`, seq), CreatedAt: now, DueAt: now, GiveUpAt: now.Add(evently.WebhookGiveUp),
	})
}

func (q *memoryQueue) Lanes(_ context.Context, after evently.WebhookID, limit int, now time.Time) (lanes []evently.WebhookLane, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.looks++
	found := make(map[evently.WebhookID]*evently.WebhookLane)
	lane := func(id evently.WebhookID) *evently.WebhookLane {
		if found[id] == nil {
			found[id] = &evently.WebhookLane{Webhook: id, URL: fmt.Sprintf("http://%d.example", id), Secrets: [][]byte{newSecret}}
		}
		return found[id]
	}
	for _, d := range q.deliveries {
		if d.Webhook > after && q.ended[d.Webhook] == evently.WebhookActive && !d.DueAt.IsZero() && !d.DueAt.After(now) {
			lane(d.Webhook).Due = true
		}
	}
	for id, count := range q.backlog {
		if id > after && count > 0 {
			lane(id).Backlog = true
		}
	}
	for _, l := range found {
		lanes = append(lanes, *l)
	}
	slices.SortFunc(lanes, func(a, b evently.WebhookLane) int { return cmp.Compare(a.Webhook, b.Webhook) })
	return lanes[:min(limit, len(lanes))], q.failLanes
}

func (q *memoryQueue) Claim(_ context.Context, id evently.WebhookID, now, until time.Time) (*evently.Delivery, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var due *evently.Delivery
	for _, d := range q.deliveries {
		if d.Webhook == id && q.ended[id] == evently.WebhookActive && !d.DueAt.IsZero() && !d.DueAt.After(now) &&
			(due == nil || d.DueAt.Before(due.DueAt)) {
			due = d
		}
	}
	if due == nil {
		return nil, nil
	}
	due.DueAt = until
	claimed := *due
	claimed.Attempts = slices.Clone(due.Attempts)
	return &claimed, nil
}

func (q *memoryQueue) find(id evently.DeliveryID) *evently.Delivery {
	return q.deliveries[slices.IndexFunc(q.deliveries, func(d *evently.Delivery) bool { return d.ID == id })]
}

func (q *memoryQueue) Unclaim(_ context.Context, delivery *evently.Delivery, now time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.find(delivery.ID).DueAt = now
	return nil
}

func (q *memoryQueue) Record(_ context.Context, d *evently.Delivery, ended evently.WebhookEnd, now time.Time) (evently.WebhookEnd, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failRecord != nil {
		return 0, q.failRecord
	}
	kept := q.find(d.ID)
	kept.Attempts = append(kept.Attempts, d.Attempts...)
	kept.Status, kept.Tried, kept.DueAt, kept.EndedAt = d.Status, d.Tried, d.DueAt, d.EndedAt
	if d.Status == evently.DeliveryDone {
		delete(q.failing, d.Webhook)
		return evently.WebhookActive, nil
	}
	since, failing := q.failing[d.Webhook]
	if !failing {
		q.failing[d.Webhook] = now
	}
	if ended == evently.WebhookActive && failing && now.Sub(since) >= evently.WebhookFailingMax {
		ended = evently.WebhookDisabled
	}
	q.ended[d.Webhook] = ended
	return ended, nil
}

func (q *memoryQueue) Refill(_ context.Context, id evently.WebhookID, _ time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range min(q.backlog[id], 10) {
		q.addOne(id)
		q.backlog[id]--
	}
	return nil
}

func (q *memoryQueue) Load(context.Context) (evently.WebhookLoad, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return evently.WebhookLoad{Pending: int64(len(q.deliveries)), Backlogs: 2, Active: 3, Ended: 4}, nil
}

// count returns how many deliveries of a webhook are in a status.
func (q *memoryQueue) count(id evently.WebhookID, status evently.DeliveryStatus) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.deliveries {
		if d.Webhook == id && d.Status == status {
			n++
		}
	}
	return n
}

// list is a copy of all deliveries.
func (q *memoryQueue) list() (list []evently.Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.deliveries {
		list = append(list, *d)
	}
	return list
}

// state is why a webhook has ended, and whether it fails.
func (q *memoryQueue) state(id evently.WebhookID) (ended evently.WebhookEnd, failing bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended[id], !q.failing[id].IsZero()
}

func (q *memoryQueue) set(change func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	change()
}
