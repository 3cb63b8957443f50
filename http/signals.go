package http

import "github.com/evently/evently"

// Signals spare a node the time until it would find out by itself. They may be lost, doubled or late: sessions that ended are
// read every revokedPeriod, and what is cached is no older than cacheTTL. All return at once and are safe for concurrent use.

// SessionEnded has this node refuse a session that was revoked, on any node.
func (s *Server) SessionEnded(id evently.SessionID) { s.revoked.add(id) }

// EventChanged has this node read an event anew that was added, changed or removed on any node, this one among them, and the
// lists that it may be in. What is being read now counts as read before.
func (s *Server) EventChanged(id evently.EventID) {
	s.caches.states.expire(id)
	s.caches.lists.outdate() // rather than clear: many events may change at once
}

// SignalsResumed has this node find out what it may not have been told: sessions that ended are read at once, and all that is
// cached is read anew when it is asked for.
func (s *Server) SignalsResumed() {
	s.caches.states.outdate()
	s.caches.lists.outdate()
	s.revoked.readSoon()
}
