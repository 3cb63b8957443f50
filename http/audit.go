package http

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

var auditQuery = []string{"event_id", "reservation_id", "user_id", "kind", "from", "to", "limit", "cursor"}

func (s *Server) auditRoutes() []route {
	return []route{{method: http.MethodGet, path: "/admin/audit", handle: s.listAudit, access: eventsOwn, query: auditQuery}}
}

// listAudit is GET /admin/audit: who changed what, newest first. Who may not read all of it reads that of an own event.
func (s *Server) listAudit(c *gin.Context) error {
	filter, err := s.auditFilterOf(c)
	if err != nil {
		return err
	}
	page, err := pageOf(c, auditByTime)
	if err != nil {
		return err
	}
	if !may(principal(c).Role, auditRead) {
		if filter.Event == 0 {
			return evently.ErrForbidden
		}
		if _, err := s.managedStateOf(c, filter.Event); err != nil {
			return err
		}
	}
	records, next, err := s.config.Audit.Records(c.Request.Context(), filter, page)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	writeList(c, records, newAuditJSON, nextCursor(next, auditByTime))
	return nil
}

// auditFilterOf reads the query parameters. When they name neither an event nor a user the time is bounded.
func (s *Server) auditFilterOf(c *gin.Context) (filter evently.AuditFilter, err error) {
	var fields evently.FieldErrors
	if text := c.Query("event_id"); text != "" {
		if filter.Event, err = evently.ParseEventID(text); err != nil {
			fields.Add("event_id", "must be the id of an event")
		}
	}
	if text := c.Query("reservation_id"); text != "" {
		id, err := evently.ParseReservationID(text)
		if waiter, notWaiter := evently.ParseWaiterID(text); notWaiter == nil {
			id, err = evently.ReservationID(waiter), nil
		}
		if err != nil || filter.Event != 0 && filter.Event != id.Event {
			fields.Add("reservation_id", "must be the id of a reservation or of an entry of a waitlist, of event_id if that is given")
		}
		filter.Event, filter.Token = id.Event, id.Token
	}
	if text := c.Query("user_id"); text != "" {
		if filter.User, err = evently.ParseUserID(text); err != nil {
			fields.Add("user_id", "must be the id of a user")
		}
	}
	if filter.Kind = c.Query("kind"); len(filter.Kind) > kindBytesMax || strings.Trim(filter.Kind, "abcdefghijklmnopqrstuvwxyz_") != "" {
		fields.Add("kind", "must be a kind such as confirmed or signed_in")
	}
	for _, bound := range []struct {
		name string
		to   *time.Time
	}{{"from", &filter.From}, {"to", &filter.To}} {
		text := c.Query(bound.name)
		if text == "" {
			continue
		}
		at, ok := parseTime(text)
		if !ok {
			fields.Add(bound.name, "must be a time such as 2027-05-01T18:00:00Z")
		}
		*bound.to = at.UTC()
	}
	if err := fields.Err(); err != nil {
		return filter, err
	}
	if filter.Event == 0 && filter.User == 0 {
		switch {
		case filter.To.IsZero() && filter.From.IsZero():
			filter.To = s.config.Now().Add(auditAhead)
			filter.From = filter.To.Add(-evently.AuditRangeMax)
		case filter.To.IsZero():
			filter.To = filter.From.Add(evently.AuditRangeMax)
		case filter.From.IsZero():
			filter.From = filter.To.Add(-evently.AuditRangeMax)
		}
		if filter.To.Sub(filter.From) > evently.AuditRangeMax {
			return filter, invalid("from", fmt.Sprintf("must be at most %d days before to, unless event_id, reservation_id or user_id is given",
				int(evently.AuditRangeMax.Hours()/24)))
		}
	}
	return filter, nil
}

const (
	kindBytesMax = 40
	// auditAhead is how far other clocks may be ahead of this node's.
	auditAhead = time.Hour
)
