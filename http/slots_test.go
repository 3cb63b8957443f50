package http

import (
	"errors"
	"testing"

	"github.com/evently/evently"
)

func TestSlots_OneForEachUserAndNotMoreInAll(t *testing.T) {
	s := newSlots(2)
	take := func(user evently.UserID) func() {
		t.Helper()
		release, err := s.take(user)
		if err != nil {
			t.Fatalf("user %d: %v", user, err)
		}
		return release
	}
	refused := func(user evently.UserID) {
		t.Helper()
		if _, err := s.take(user); !errors.Is(err, evently.ErrOverloaded) {
			t.Errorf("user %d: %v, want %v", user, err, evently.ErrOverloaded)
		}
	}
	first := take(1)
	refused(1)
	second := take(2)
	refused(3)
	first()
	take(3)()
	take(1)
	refused(2)
	second()
	take(2)
}
