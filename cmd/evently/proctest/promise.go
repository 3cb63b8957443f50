package proctest

import (
	"bytes"
	"fmt"
	"testing"
)

// Promise is what a client was told about one key. Its fields belong to that client until it has stopped.
type Promise struct {
	Client   *Client
	Event    string // path
	Key      string
	Quantity int

	ID        string
	Booked    []byte // the answer 201; nil: not known
	Confirmed bool   // acknowledged
	Cancelled bool   // acknowledged
	Tried     bool   // a later request has no answer, so that the state may be ahead of what is known
}

// Body is that of the booking.
func (p *Promise) Body() string { return fmt.Sprintf(`{"quantity":%d}`, p.Quantity) }

// allowed reports whether a reservation that was promised so may be in a state.
func (p *Promise) allowed(status string) bool {
	want := "held"
	switch {
	case p.Cancelled:
		want = "cancelled"
	case p.Confirmed:
		want = "confirmed"
	}
	ahead := p.Tried && (status == "confirmed" && !p.Cancelled || status == "cancelled" && p.Confirmed)
	return status == want || ahead
}

// Settle asks again with the same key, compares with what was promised, and returns the seats that the reservation occupies.
func (p *Promise) Settle(t testing.TB) (held, booked int) {
	t.Helper()
	again := p.Client.Must(t, 201, "POST", p.Event+"/book", p.Key, p.Body())
	if p.Booked != nil && (!again.Replayed || !bytes.Equal(again.Body, p.Booked)) {
		t.Errorf("key %s was answered\n%s and later\n%s", p.Key, p.Booked, again.Body)
	}
	p.ID = again.Seats(t).ID
	now := p.Client.Must(t, 200, "GET", "/reservations/"+p.ID, "", "").Seats(t)
	if !p.allowed(now.Status) {
		t.Errorf("key %s: %s, but promised %+v", p.Key, now.Status, p)
	}
	switch now.Status {
	case "held":
		return now.Quantity, 0
	case "confirmed":
		return 0, now.Quantity
	}
	return 0, 0
}
