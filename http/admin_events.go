package http

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

func (s *Server) adminRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/admin/events", handle: s.listManagedEvents, access: eventsOwn, query: managedQuery},
		{method: http.MethodPost, path: "/admin/events", handle: s.createEvent, access: eventsOwn, key: keyOptional},
		{method: http.MethodGet, path: "/admin/events/capacity_utilization", handle: s.listUtilization, access: eventsOwn, query: managedQuery},
		{method: http.MethodGet, path: "/admin/events/:id", handle: s.getManagedEvent, access: eventsOwn},
		{method: http.MethodPut, path: "/admin/events/:id", handle: s.reviseEvent, access: eventsOwn},
		{method: http.MethodDelete, path: "/admin/events/:id", handle: s.deleteEvent, access: eventsOwn, noBody: true},
		{method: http.MethodPost, path: "/admin/events/:id/publish", handle: s.publishEvent, access: eventsOwn, key: keyOptional, noBody: true},
		{method: http.MethodPost, path: "/admin/events/:id/cancel", handle: s.cancelEvent, access: eventsOwn, key: keyOptional, noBody: true},
		{method: http.MethodGet, path: "/admin/analytics/system", handle: s.getSystem, access: systemRead, query: systemQuery},
		{method: http.MethodGet, path: "/admin/events/:id/bookings", handle: s.listEventBookings, access: eventsOwn, query: bookingsQuery},
		{
			method: http.MethodGet, path: "/admin/events/:id/bookings.csv", handle: s.exportBookings, access: eventsOwn, query: exportQuery,
			workMax: exportWorkMax,
		},
	}
}

// firstVersion is the Version of a new event.
const firstVersion = 1

var errVersionRequired = &evently.Error{
	Code: evently.CodeVersionRequired, Detail: "The If-Match header is needed: the ETag of the event that the change was made against.",
}

func (s *Server) createEvent(c *gin.Context) error {
	var body eventBody
	if err := decode(c, &body); err != nil {
		return err
	}
	now := s.config.Now().UTC().Truncate(time.Millisecond)
	details, _, err := body.details(nil, s.config.HoldTTL, now)
	if err != nil {
		return err
	}
	id, err := s.newEventID(c)
	if err != nil {
		return err
	}
	who := principal(c).User
	event := &evently.Event{
		ID: id, Organizer: who, Status: body.status(), Version: firstVersion, CreatedAt: now, EventDetails: details,
	}
	created, err := s.config.Catalogue.CreateEvent(c.Request.Context(), event, who, requestID(c))
	if err != nil {
		return err
	}
	location := "/events/"
	if created.Status == evently.EventDraft { // not there to the public
		location = "/admin/events/"
	}
	c.Writer.Header()["Location"] = []string{location + created.ID.String()}
	return s.answerChanged(c, http.StatusCreated, created)
}

// newEventID makes the id of the event that a request creates. A request that is repeated with its key when its answer is not
// stored, as after a crash, makes the same event again; with another body it makes another.
func (s *Server) newEventID(c *gin.Context) (evently.EventID, error) {
	key := answerKey(c)
	if key == (evently.Key{}) {
		id, err := s.random64()
		return evently.EventID(id), err
	}
	sum := sha256.Sum256(append(scopeBytes(key), bodyOf(c)...))
	return evently.EventID(cmp.Or(binary.BigEndian.Uint64(sum[:]), 1)), nil
}

func (s *Server) reviseEvent(c *gin.Context) error {
	var body eventBody
	state, err := s.matchedState(c, func() error { return decode(c, &body) })
	if err != nil {
		return err
	}
	details, places, err := body.details(state.Event, s.config.HoldTTL, s.config.Now())
	if err != nil {
		return err
	}
	reply, err := s.do(c, state.Event.ID, &evently.Revise{Version: state.Event.Version, Details: details})
	if err != nil {
		s.caches.states.expire(state.Event.ID) // what was refused may be news to this node
		return places.translateError(err)
	}
	return s.answerChanged(c, http.StatusOK, reply.Event)
}

// ifMatch returns the values of the request's If-Match header, which has to be there and well formed.
func ifMatch(c *gin.Context) (tags []string, err error) {
	tags = c.Request.Header["If-Match"]
	if len(tags) == 0 {
		return nil, errVersionRequired
	}
	if _, wellFormed := matchTag(tags, "", false); !wellFormed {
		return nil, invalid("If-Match", `must be an entity tag such as "3"`)
	}
	return tags, nil
}

// matchedState returns the state of a managed event if its version is one that If-Match names. read reads the rest of the request: what
// is wrong with that is told first.
func (s *Server) matchedState(c *gin.Context, read func() error) (*evently.State, error) {
	state, err := s.managedState(c)
	if err != nil {
		return nil, err
	}
	tags, err := ifMatch(c)
	if err != nil {
		return nil, err
	}
	if err := read(); err != nil {
		return nil, err
	}
	if matched, _ := matchTag(tags, eventTag(state.Event), false); matched {
		return state, nil
	}
	// The change may have been made on another node a moment ago.
	s.caches.states.expire(state.Event.ID)
	if state, err = s.managedState(c); err != nil {
		return nil, err
	}
	if matched, _ := matchTag(tags, eventTag(state.Event), false); !matched {
		return nil, evently.ErrVersionStale
	}
	return state, nil
}

func (s *Server) publishEvent(c *gin.Context) error { return s.change(c, &evently.Publish{}) }

func (s *Server) cancelEvent(c *gin.Context) error { return s.change(c, &evently.CancelEvent{}) }

// change has the owner of a managed event decide a command that changes the event.
func (s *Server) change(c *gin.Context, command evently.Command) error {
	state, err := s.managedState(c)
	if err != nil {
		return err
	}
	reply, err := s.do(c, state.Event.ID, command)
	if err != nil {
		return err
	}
	return s.answerChanged(c, http.StatusOK, reply.Event)
}

func (s *Server) deleteEvent(c *gin.Context) error {
	state, err := s.managedState(c)
	if err != nil {
		return err
	}
	if err := s.config.Catalogue.DeleteDraft(c.Request.Context(), state.Event.ID, principal(c).User, requestID(c)); err != nil {
		return err
	}
	s.caches.changed(state.Event.ID)
	writeNothing(c)
	return nil
}

func (s *Server) getManagedEvent(c *gin.Context) error {
	state, err := s.managedState(c)
	if err != nil {
		return err
	}
	writeEvent(c, state)
	return nil
}

// managedState returns the state of an event of the organizer who asks, or of anybody's for an admin. Others are not there.
func (s *Server) managedState(c *gin.Context) (*evently.State, error) {
	id, err := eventParam(c)
	if err != nil {
		return nil, err
	}
	return s.managedStateOf(c, id)
}

func (s *Server) managedStateOf(c *gin.Context, id evently.EventID) (*evently.State, error) {
	state, err := s.caches.states.get(c.Request.Context(), id)
	if err != nil {
		return nil, err
	}
	if organizer := managedBy(c); organizer != 0 && state.Event.Organizer != organizer {
		return nil, evently.ErrEventNotFound
	}
	return state, nil
}

// managedBy is the organizer who asks, whose events and webhooks are all that there are; zero: an admin, who manages everybody's.
func managedBy(c *gin.Context) evently.UserID {
	if who := principal(c); !may(who.Role, eventsAny) {
		return who.User
	}
	return 0
}

// answerChanged answers with an event as it is after a change.
func (s *Server) answerChanged(c *gin.Context, status int, event *evently.Event) error {
	s.caches.changed(event.ID)
	state, err := s.caches.states.get(c.Request.Context(), event.ID)
	if err != nil {
		return err
	}
	if state.Event.Version < event.Version {
		return evently.ErrUnavailable // an old state, served because the database has gone away since
	}
	c.Writer.Header()["Etag"] = []string{eventTag(state.Event)}
	writeJSON(c, status, newEventJSON(state))
	return nil
}

// managedStates lists the events of the organizer who asks, or everybody's for an admin, in all statuses.
func (s *Server) managedStates(c *gin.Context) ([]*evently.State, *string, error) {
	query, err := listQueryOf(c)
	if err != nil {
		return nil, nil, err
	}
	statuses, err := statusesOf(c, evently.ParseEventStatus)
	if err != nil {
		return nil, nil, err
	}
	filter := query.filter(statuses...)
	filter.Organizer = managedBy(c)
	states, next, err := s.config.Catalogue.States(c.Request.Context(), filter, query.page())
	return s.caches.newest(states), nextCursor(next, query.order()), err
}

func (s *Server) listManagedEvents(c *gin.Context) error {
	states, next, err := s.managedStates(c)
	if err != nil {
		return err
	}
	writeList(c, states, newEventJSON, next)
	return nil
}

func (s *Server) listUtilization(c *gin.Context) error {
	states, next, err := s.managedStates(c)
	if err != nil {
		return err
	}
	writeList(c, states, newUtilizationJSON, next)
	return nil
}

func (s *Server) listEventBookings(c *gin.Context) error {
	state, err := s.managedState(c)
	if err != nil {
		return err
	}
	return s.listReservations(c, evently.ReservationFilter{Event: state.Event.ID})
}
