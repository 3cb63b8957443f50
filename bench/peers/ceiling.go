package peers

import (
	"context"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
	eventlyhttp "github.com/evently/evently/http"
)

// The bodies of the ceilings are as long as real ones.
const (
	reservationBody = `{"id":"rsv_3w4zq9d0b7c2k5m8p1r6t9v2x4","event_id":"evt_3w4zq9d0b7c2k","user_id":"usr_7h2j5k8m1n4p6","status":"held",` +
		`"quantity":1,"items":[{"tier_id":"t1","quantity":1,"unit_price_minor":2500}],"total_minor":2500,"currency":"EUR",` +
		`"created_at":"2026-01-02T03:04:05.678Z","expires_at":"2026-01-02T03:14:05.678Z","confirmed_at":null,"cancelled_at":null,"seq":123456}`
	eventBody = `{"id":"evt_3w4zq9d0b7c2k","name":"Concert","description":"","category":"music","venue":"Hall","city":"Vienna",` +
		`"timezone":"Europe/Vienna","starts_at":"2099-06-01T18:00:00Z","ends_at":"2099-06-01T20:00:00Z","sales_start_at":null,` +
		`"sales_end_at":null,"status":"published","capacity":1000000,"available":1000000,"tiers":[{"id":"t1","name":"General",` +
		`"capacity":1000000,"available":1000000,"base_price_minor":2500,"price_minor":2500}],"currency":"EUR","hold_ttl_seconds":600,` +
		`"max_per_booking":10,"max_per_user":null,"version":1,"seq":1}`
)

// Constants are the answers of the ceilings to what the workloads ask, for eventlyhttp.NewShell.
func Constants() []eventlyhttp.Constant {
	return []eventlyhttp.Constant{
		{Method: http.MethodPost, Path: "/events/:id/book", Status: http.StatusCreated, Body: []byte(reservationBody)},
		{Method: http.MethodGet, Path: "/events/:id", Status: http.StatusOK, Body: []byte(eventBody)},
		{Method: http.MethodPost, Path: "/reservations/:id/confirm", Status: http.StatusOK, Body: []byte(reservationBody)},
		{Method: http.MethodPost, Path: "/bookings/:id/cancel", Status: http.StatusOK, Body: []byte(reservationBody)},
	}
}

// Bare returns the ceiling gin: Constants without a shell, and /readyz.
func Bare() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	for _, constant := range Constants() {
		length := []string{strconv.Itoa(len(constant.Body))}
		engine.Handle(constant.Method, constant.Path, func(c *gin.Context) {
			header := c.Writer.Header()
			header["Content-Type"], header["Content-Length"] = jsonMediaType, length
			c.Writer.WriteHeader(constant.Status)
			_, _ = c.Writer.Write(constant.Body) // a client that went away is no failure
		})
	}
	engine.GET("/readyz", func(c *gin.Context) { c.Status(http.StatusOK) })
	return engine
}

var jsonMediaType = []string{"application/json"}

// instant answers every booking at once and keeps nothing.
type instant struct{}

func (instant) book(_ context.Context, b *booking) (*evently.Reservation, error) {
	b.seq = 1
	return nil, nil
}

func (instant) known(context.Context, *offer, evently.Key) (*evently.Reservation, error) {
	return nil, nil
}

func (instant) change(context.Context, *offer, *change) (*evently.Reservation, error) {
	return nil, evently.ErrReservationNotFound
}

func (instant) counts(context.Context, *offer) (held, booked []int, err error) { return nil, nil, nil }
