package http

import (
	"fmt"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// listBookings is the history of the user who asks: reservations in all statuses, newest first.
func (s *Server) listBookings(c *gin.Context) error {
	return s.listReservations(c, evently.ReservationFilter{User: principal(c).User})
}

// listReservations answers with a page of reservations, those in the statuses asked for.
func (s *Server) listReservations(c *gin.Context, filter evently.ReservationFilter) error {
	order := reservationsOfUser
	if filter.User == 0 {
		order = reservationsOfEvent
	}
	page, err := pageOf(c, order)
	if err != nil {
		return err
	}
	if filter.Statuses, err = statusesOf(c, evently.ParseReservationStatus); err != nil {
		return err
	}
	list, next, err := s.config.History.Reservations(c.Request.Context(), filter, page)
	if err != nil {
		return err
	}
	writeReservations(c, list, nextCursor(next, order))
	return nil
}

// statusesOf reads ?status=, one or several separated by commas. None means all.
func statusesOf[S any](c *gin.Context, parse func(string) (S, error)) ([]S, error) {
	text := c.Query("status")
	if text == "" {
		return nil, nil
	}
	var statuses []S
	for name := range strings.SplitSeq(text, ",") {
		status, err := parse(name)
		if err != nil {
			return nil, invalid("status", fmt.Sprintf("%.40q is no status", name))
		}
		statuses = append(statuses, status)
	}
	return statuses, nil
}
