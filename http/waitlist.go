package http

import (
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

var waitlistQuery = []string{"status", "limit", "cursor"}

func (s *Server) waitlistRoutes() []route {
	return []route{
		{
			method: http.MethodPost, path: "/events/:id/waitlist", handle: s.joinWaitlist, access: waitlistOwn, limit: limitBook, key: keyBook,
			verified: true,
		},
		{method: http.MethodGet, path: "/waitlist", handle: s.listOwnWaiters, access: waitlistOwn, query: waitlistQuery},
		{method: http.MethodGet, path: "/events/:id/waitlist/me", handle: s.getOwnWaiter, access: waitlistOwn},
		{method: http.MethodDelete, path: "/events/:id/waitlist/me", handle: s.leaveWaitlist, access: waitlistOwn, noBody: true},
		{method: http.MethodGet, path: "/admin/events/:id/waitlist", handle: s.listEventWaiters, access: eventsOwn, query: waitlistQuery},
		{method: http.MethodPut, path: "/admin/events/:id/waitlist/:entry_id", handle: s.prioritizeWaiter, access: eventsOwn},
	}
}

// joinWaitlist is POST /events/{id}/waitlist. Like a booking it is remembered by the ledger, with the answer to its key: the
// waiter as it joined, whatever has become of it since.
func (s *Server) joinWaitlist(c *gin.Context) error {
	asked, err := s.asked(c, waitFields)
	if err != nil {
		return err
	}
	who := principal(c).User
	reply, err := s.do(c, asked.event, &evently.JoinWaitlist{
		User: who, Key: evently.WaitKey(who, asked.key), Items: asked.items, OnRelease: asked.onRelease, Token: asked.token,
	})
	if err != nil {
		return err
	}
	header := c.Writer.Header()
	header["Location"] = []string{"/events/" + asked.event.String() + "/waitlist/me"}
	if reply.Replayed {
		header["Idempotency-Replayed"] = replayedTrue
	}
	writeJSON(c, http.StatusCreated, newWaiterJSON(&evently.WaiterState{Waiter: *reply.Waiter, Position: reply.Waiter.Position}))
	return nil
}

func (s *Server) getOwnWaiter(c *gin.Context) error {
	event, err := eventParam(c)
	if err != nil {
		return err
	}
	waiter, err := s.config.Waitlists.WaiterOf(c.Request.Context(), event, principal(c).User)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, newWaiterJSON(waiter))
	return nil
}

func (s *Server) leaveWaitlist(c *gin.Context) error {
	event, err := eventParam(c)
	if err != nil {
		return err
	}
	if _, err := s.do(c, event, &evently.LeaveWaitlist{User: principal(c).User}); err != nil {
		return err
	}
	writeNothing(c)
	return nil
}

func (s *Server) listOwnWaiters(c *gin.Context) error {
	return s.listWaiters(c, evently.WaiterFilter{User: principal(c).User}, waitersOfUser)
}

func (s *Server) listEventWaiters(c *gin.Context) error {
	state, err := s.managedState(c)
	if err != nil {
		return err
	}
	return s.listWaiters(c, evently.WaiterFilter{Event: state.Event.ID}, waitersOfEvent)
}

// listWaiters answers with a page of waiters, of those that wait alone if ?status=waiting asks for it.
func (s *Server) listWaiters(c *gin.Context, filter evently.WaiterFilter, order listOrder) error {
	page, err := pageOf(c, order)
	if err != nil {
		return err
	}
	switch c.Query("status") {
	case "":
	case evently.Waiting.String():
		filter.OnlyWaiting = true
	default:
		return invalid("status", "must be waiting")
	}
	list, next, err := s.config.Waitlists.Waiters(c.Request.Context(), filter, page)
	if err != nil {
		return err
	}
	writeList(c, list, newWaiterJSON, nextCursor(next, order))
	return nil
}

// priorityBody is the body of PUT /admin/events/{id}/waitlist/{entry_id}.
type priorityBody struct {
	Priority *int `json:"priority"`
}

func (s *Server) prioritizeWaiter(c *gin.Context) error {
	state, err := s.managedState(c)
	if err != nil {
		return err
	}
	var body priorityBody
	if err := decode(c, &body); err != nil {
		return err
	}
	if body.Priority == nil || *body.Priority < -evently.PriorityMax || *body.Priority > evently.PriorityMax {
		return invalid("priority", fmt.Sprintf("must be %d to %d", -evently.PriorityMax, evently.PriorityMax))
	}
	id, err := evently.ParseWaiterID(c.Param("entry_id"))
	if err != nil || id.Event != state.Event.ID {
		return evently.ErrWaiterNotFound
	}
	if _, err := s.do(c, id.Event, &evently.Prioritize{Token: id.Token, Priority: *body.Priority}); err != nil {
		return err
	}
	waiter, err := s.config.Waitlists.Waiter(c.Request.Context(), id) // with the place it has now
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, newWaiterJSON(waiter))
	return nil
}
