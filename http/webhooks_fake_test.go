package http

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/evently/evently"
)

// fakeWebhooks is evently.Webhooks in memory.
type fakeWebhooks struct {
	mu         sync.Mutex
	fail       error // what every call returns, unless nil
	kept       map[evently.WebhookID]*evently.Webhook
	secrets    map[evently.WebhookID][]byte
	deliveries []*evently.Delivery // oldest first
}

var _ evently.Webhooks = (*fakeWebhooks)(nil)

func newFakeWebhooks() *fakeWebhooks {
	return &fakeWebhooks{kept: make(map[evently.WebhookID]*evently.Webhook), secrets: make(map[evently.WebhookID][]byte)}
}

// fakeTarget refuses what tests take for private.
func fakeTarget(_ context.Context, url string) error {
	if strings.Contains(url, "private") {
		return invalid("url", "must have a host with a public address")
	}
	return nil
}

func (f *fakeWebhooks) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *fakeWebhooks) CreateWebhook(_ context.Context, webhook *evently.Webhook, secret []byte) (*evently.Webhook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	others := 0
	for id, other := range f.kept {
		if other.Owner == webhook.Owner && id != webhook.ID {
			others++
		}
	}
	if others >= evently.WebhooksMax {
		return nil, evently.ErrWebhooksFull
	}
	f.secrets[webhook.ID] = secret
	if made := f.kept[webhook.ID]; made != nil {
		return made, nil
	}
	f.kept[webhook.ID] = webhook
	return webhook, nil
}

// change gives a webhook of an owner to a function, and returns what becomes of it.
func (f *fakeWebhooks) change(owner evently.UserID, id evently.WebhookID, how func(*evently.Webhook)) (*evently.Webhook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	found := f.kept[id]
	if found == nil || owner != 0 && found.Owner != owner {
		return nil, evently.ErrNotFound
	}
	changed := *found
	how(&changed)
	f.kept[id] = &changed
	return &changed, nil
}

func (f *fakeWebhooks) Webhook(_ context.Context, owner evently.UserID, id evently.WebhookID) (*evently.Webhook, error) {
	return f.change(owner, id, func(*evently.Webhook) {})
}

func (f *fakeWebhooks) Webhooks(_ context.Context, owner evently.UserID, page evently.Page) (
	list []*evently.Webhook, next *evently.Cursor, err error,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, nil, f.fail
	}
	for _, webhook := range f.kept {
		after := page.After == nil || webhook.CreatedAt.UnixMilli() > page.After.Order ||
			webhook.CreatedAt.UnixMilli() == page.After.Order && webhook.ID > evently.WebhookID(page.After.Token)
		if after && (owner == 0 || webhook.Owner == owner) {
			list = append(list, webhook)
		}
	}
	slices.SortFunc(list, func(a, b *evently.Webhook) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	if len(list) > page.Limit {
		last := list[page.Limit-1]
		list, next = list[:page.Limit], &evently.Cursor{Order: last.CreatedAt.UnixMilli(), Token: evently.Token(last.ID)}
	}
	return list, next, nil
}

func (f *fakeWebhooks) ReviseWebhook(_ context.Context, owner evently.UserID, webhook *evently.Webhook) (*evently.Webhook, error) {
	return f.change(owner, webhook.ID, func(w *evently.Webhook) {
		w.URL, w.Description, w.Types, w.UpdatedAt = webhook.URL, webhook.Description, webhook.Types, webhook.UpdatedAt
		switch {
		case webhook.Ended == evently.WebhookActive:
			w.Ended, w.EndedAt = evently.WebhookActive, time.Time{}
		case w.Ended == evently.WebhookActive:
			w.Ended, w.EndedAt = webhook.Ended, webhook.UpdatedAt
		}
	})
}

func (f *fakeWebhooks) DeleteWebhook(_ context.Context, owner evently.UserID, id evently.WebhookID) error {
	_, err := f.change(owner, id, func(*evently.Webhook) {})
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.kept, id)
	}
	return err
}

func (f *fakeWebhooks) EnableWebhook(_ context.Context, owner evently.UserID, id evently.WebhookID, _ time.Time) (*evently.Webhook, error) {
	return f.change(owner, id, func(w *evently.Webhook) { w.Ended, w.EndedAt = evently.WebhookActive, time.Time{} })
}

func (f *fakeWebhooks) RotateSecret(_ context.Context, owner evently.UserID, id evently.WebhookID, secret []byte, now time.Time) (
	*evently.Webhook, error,
) {
	return f.change(owner, id, func(w *evently.Webhook) {
		f.secrets[id], w.OverlapUntil = secret, now.Add(evently.WebhookSecretOverlap)
	})
}

func (f *fakeWebhooks) active(owner evently.UserID, id evently.WebhookID) error {
	webhook, err := f.Webhook(context.Background(), owner, id)
	if err == nil && webhook.Ended != evently.WebhookActive {
		err = evently.ErrWebhookDisabled
	}
	return err
}

func (f *fakeWebhooks) Ping(_ context.Context, owner evently.UserID, id evently.WebhookID, nonce uint64, now time.Time) (
	*evently.Delivery, error,
) {
	if err := f.active(owner, id); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	name := evently.NewDeliveryID(id, 0, nonce)
	if i := slices.IndexFunc(f.deliveries, func(d *evently.Delivery) bool { return d.ID == name }); i >= 0 {
		return f.deliveries[i], nil
	}
	delivery := &evently.Delivery{ID: name, Webhook: id, Seq: nonce, CreatedAt: now, DueAt: now}
	f.deliveries = append(f.deliveries, delivery)
	return delivery, nil
}

func (f *fakeWebhooks) Deliveries(_ context.Context, owner evently.UserID, id evently.WebhookID, page evently.Page) (
	list []*evently.Delivery, next *evently.Cursor, err error,
) {
	if _, err := f.Webhook(context.Background(), owner, id); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	skip := page.After != nil
	for _, delivery := range slices.Backward(f.deliveries) {
		switch {
		case delivery.Webhook != id:
		case skip:
			skip = delivery.ID != evently.DeliveryID{Hi: uint64(page.After.Event), Lo: uint64(page.After.Token)}
		case len(list) == page.Limit:
			last := list[len(list)-1]
			return list, &evently.Cursor{
				Order: last.CreatedAt.UnixMilli(), Event: evently.EventID(last.ID.Hi), Token: evently.Token(last.ID.Lo),
			}, nil
		default:
			list = append(list, delivery)
		}
	}
	return list, nil, nil
}

func (f *fakeWebhooks) Redeliver(_ context.Context, owner evently.UserID, id evently.WebhookID, name evently.DeliveryID, now time.Time) (
	*evently.Delivery, error,
) {
	if err := f.active(owner, id); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, delivery := range f.deliveries {
		if delivery.ID == name && delivery.Webhook == id {
			delivery.Status, delivery.DueAt, delivery.EndedAt = evently.DeliveryPending, now, time.Time{}
			return delivery, nil
		}
	}
	return nil, evently.ErrNotFound
}

// attempted gives the newest delivery an attempt.
func (f *fakeWebhooks) attempted(code int, fault string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delivery := f.deliveries[len(f.deliveries)-1]
	delivery.Attempts = append(delivery.Attempts, evently.DeliveryAttempt{
		At: delivery.CreatedAt, LatencyMS: 7, HTTPCode: code, Fault: fault, Excerpt: "ok",
	})
	if fault == "" {
		delivery.Status, delivery.DueAt, delivery.EndedAt = evently.DeliveryDone, time.Time{}, delivery.CreatedAt
	}
}
