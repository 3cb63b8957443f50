package http

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

func (s *Server) reservationRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/reservations/:id", handle: s.getReservation, access: bookingsOwn},
		{method: http.MethodPost, path: "/reservations/:id/confirm", handle: s.confirmReservation, access: bookingsOwn, key: keyOptional},
		{method: http.MethodDelete, path: "/reservations/:id", handle: s.releaseReservation, access: bookingsOwn, noBody: true},
		{method: http.MethodGet, path: "/bookings", handle: s.listBookings, access: bookingsOwn, query: bookingsQuery},
		{method: http.MethodGet, path: "/bookings/:id", handle: s.getReservation, access: bookingsOwn},
		{method: http.MethodPost, path: "/bookings/:id/cancel", handle: s.cancelBooking, access: bookingsOwn, key: keyOptional, noBody: true},
	}
}

func reservationParam(c *gin.Context) (evently.ReservationID, error) {
	id, err := evently.ParseReservationID(c.Param("id"))
	if err != nil {
		return id, evently.ErrReservationNotFound // ids are opaque: a text that is none names nothing
	}
	return id, nil
}

// getReservation reads the row, which is the truth: what an earlier answer said is already there.
func (s *Server) getReservation(c *gin.Context) error {
	id, err := reservationParam(c)
	if err != nil {
		return err
	}
	r, err := s.ownReservation(c, id)
	if err != nil {
		return err
	}
	writeReservation(c, http.StatusOK, r)
	return nil
}

// ownReservation returns a reservation of the user who asks. Another user's is not there.
func (s *Server) ownReservation(c *gin.Context, id evently.ReservationID) (*evently.Reservation, error) {
	r, err := s.config.History.Reservation(c.Request.Context(), id)
	if err != nil {
		return nil, err
	}
	if r.User != principal(c).User {
		return nil, evently.ErrReservationNotFound
	}
	return r, nil
}

// confirmJSON is the body of a confirmation, which may be missing.
type confirmJSON struct {
	PaymentToken *string `json:"payment_token"` // accepted for when payments are on
}

func (s *Server) confirmReservation(c *gin.Context) error {
	if len(bodyOf(c)) > 0 {
		if err := decode(c, &confirmJSON{}); err != nil {
			return err
		}
	}
	id, err := reservationParam(c)
	if err != nil {
		return err
	}
	reply, err := s.do(c, id.Event, &evently.Confirm{User: principal(c).User, Token: id.Token})
	if err != nil {
		return err
	}
	writeReservation(c, http.StatusOK, &reply.Reservation)
	return nil
}

func (s *Server) releaseReservation(c *gin.Context) error {
	id, err := reservationParam(c)
	if err != nil {
		return err
	}
	if _, err := s.do(c, id.Event, &evently.Release{User: principal(c).User, Token: id.Token}); err != nil {
		return err
	}
	writeNothing(c)
	return nil
}

func (s *Server) cancelBooking(c *gin.Context) error {
	id, err := reservationParam(c)
	if err != nil {
		return err
	}
	reply, err := s.do(c, id.Event, &evently.Cancel{User: principal(c).User, Token: id.Token})
	if err != nil {
		return err
	}
	writeReservation(c, http.StatusOK, &reply.Reservation)
	return nil
}

// do has the event's owner decide a command of whoever makes the request.
func (s *Server) do(c *gin.Context, event evently.EventID, command evently.Command) (evently.Reply, error) {
	return s.config.Engine.Do(c.Request.Context(), &evently.Request{
		Event: event, Command: command, Who: principal(c).User, ID: requestID(c), Trace: requestTrace(c),
	})
}
