package http

import (
	"sync"

	"github.com/evently/evently"
)

// slots bounds long work that users ask for: so many at a time, and of each user one.
type slots struct {
	most int

	mu    sync.Mutex
	taken map[evently.UserID]struct{}
}

func newSlots(most int) *slots { return &slots{most: most, taken: make(map[evently.UserID]struct{})} }

// take reserves a slot until release is called. It returns ErrOverloaded when none is free, or the user has one.
func (s *slots) take(user evently.UserID) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, has := s.taken[user]; has || len(s.taken) >= s.most {
		return nil, evently.ErrOverloaded
	}
	s.taken[user] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.taken, user)
	}, nil
}
