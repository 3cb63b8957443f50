package peers

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/evently/evently"
)

func TestBare_AnswersWhatTheWorkloadsAsk(t *testing.T) {
	bare := Bare()
	for _, constant := range Constants() {
		path := strings.ReplaceAll(constant.Path, ":id", "evt_3w4zq9d0b7c2k")
		answer := httptest.NewRecorder()
		bare.ServeHTTP(answer, httptest.NewRequest(constant.Method, path, nil))
		if answer.Code != constant.Status || answer.Body.String() != string(constant.Body) || !json.Valid(answer.Body.Bytes()) {
			t.Errorf("%s %s: %d %s", constant.Method, path, answer.Code, answer.Body)
		}
	}
	answer := httptest.NewRecorder()
	if bare.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil)); answer.Code != http.StatusOK {
		t.Errorf("readyz: %d", answer.Code)
	}
}

// TestConstants_AreLikeRealAnswers keeps the ceilings from being lower than what they are the ceiling of, or far above.
func TestConstants_AreLikeRealAnswers(t *testing.T) {
	for _, constant := range Constants() {
		var body struct{ ID string }
		if err := json.Unmarshal(constant.Body, &body); err != nil {
			t.Fatal(err)
		}
		_, notReservation := evently.ParseReservationID(body.ID)
		_, notEvent := evently.ParseEventID(body.ID)
		if notReservation != nil && notEvent != nil {
			t.Errorf("%s %s: %v, %v", constant.Method, constant.Path, notReservation, notEvent)
		}
	}
}

// TestNoop_AnswersAtOnce: the engine behind the ceiling's other routes.
func TestNoop_AnswersAtOnce(t *testing.T) {
	w := newWorld(t, "noop")
	event := w.event(t, nil, 1)
	for _, key := range []string{"a", "b"} {
		if r := w.mustBook(t, event, 1, key, 1); r.Status != evently.Held {
			t.Errorf("%+v", r)
		}
	}
	if err := w.storage.Reservations(t.Context(), []evently.EventID{event}, nil); err != nil {
		t.Error(err)
	}
}
