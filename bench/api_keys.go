package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/evently/evently"
)

// keySamplesMax bounds the keys that are asked for again where what is stored does not tell them.
const keySamplesMax = 100

// keySample is a booking that was acknowledged, with its key.
type keySample struct {
	key  Key
	id   evently.ReservationID
	user *User
	rank uint64 // random
}

// sample keeps the keySamplesMax samples of the lowest ranks: any of all that it was called with, whichever came first.
func (t *Told) sample(s keySample) {
	at, _ := slices.BinarySearchFunc(t.samples, s.rank, func(s keySample, rank uint64) int { return cmp.Compare(s.rank, rank) })
	t.samples = slices.Insert(t.samples, at, s)
	t.samples = t.samples[:min(len(t.samples), keySamplesMax)]
}

// replay sends bookings again with their keys, and counts in the audit those that are not answered by the same reservation as a
// repetition. Nothing more is sold by them, unless there is the fault that is looked for.
func (a *API) replay(ctx context.Context, samples []keySample, audit *Audit) error {
	for i := range samples {
		s := &samples[i]
		var again struct{ ID string }
		told := false
		err := booking(ctx, a.URL, s.id.Event, s.user, s.key, func(header http.Header, body io.Reader) error {
			told = header.Get("Idempotency-Replayed") == "true"
			return decoding(&again)(header, body)
		})
		if err != nil {
			return fmt.Errorf("audit: send the booking %s again: %w", s.id, err)
		}
		audit.Keys++
		if again.ID != s.id.String() || !told {
			audit.DoubledKeys++
			audit.fault("key %s was answered with %s, and then with %s (as a repetition: %v)", s.key.Text(), s.id, again.ID, told)
		}
	}
	return nil
}

// booking books a seat by the API.
func booking(
	ctx context.Context, url string, event evently.EventID, user *User, key Key, take func(http.Header, io.Reader) error,
) error {
	return callWithKey(ctx, url, user.Token, key.Text(), http.StatusCreated, "POST", "/events/"+event.String()+"/book",
		json.RawMessage(bookBody), take)
}
