package http

import (
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// pricingRunMax bounds a run over all events that have a rule; tens of thousands of them take as long. The periodic job has more time.
const pricingRunMax = 50 * time.Second

// pricingRunsMax bounds the runs under way at a time, of each user one; more are refused with 503 overloaded.
const pricingRunsMax = 2

func (s *Server) pricingRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/admin/events/:id/pricing", handle: s.getPricing, access: eventsOwn},
		{method: http.MethodPut, path: "/admin/events/:id/pricing", handle: s.setPricing, access: eventsOwn, query: []string{"dry_run"}},
		{method: http.MethodDelete, path: "/admin/events/:id/pricing", handle: s.removePricing, access: eventsOwn, noBody: true},
		{
			method: http.MethodPost, path: "/admin/pricing/run", handle: s.runPricing, access: pricingRun, key: keyOptional,
			workMax: pricingRunMax,
		},
	}
}

// getPricing answers with the rule, the prices, and those that the rule gives at this moment.
func (s *Server) getPricing(c *gin.Context) error {
	id, err := eventParam(c)
	if err != nil {
		return err
	}
	s.caches.states.expire(id) // prices now and next are told side by side
	state, err := s.managedStateOf(c, id)
	if err != nil {
		return err
	}
	next := state.Event
	if next.Pricing != nil {
		reply, err := s.do(c, id, &evently.Reprice{DryRun: true})
		switch {
		case err == nil:
			next = reply.Event
		case !errors.Is(err, evently.ErrEventCancelled): // whose prices stay
			return err
		}
	}
	writePricing(c, state.Event, state.Event, next)
	return nil
}

// setPricing replaces the rule, or with ?dry_run=true tells what it would do.
func (s *Server) setPricing(c *gin.Context) error {
	var dryRun bool
	var rule *evently.PricingRule
	state, err := s.matchedState(c, func() (err error) {
		dryRun, rule, err = pricingAsked(c)
		return err
	})
	if err != nil {
		return err
	}
	event, err := s.priced(c, state, &evently.SetPricing{Version: state.Event.Version, Rule: rule, DryRun: dryRun})
	if err != nil {
		return err
	}
	now := event
	if dryRun {
		now = state.Event // of the version that the ledger has found to be the present one
	}
	writePricing(c, event, now, event)
	return nil
}

// pricingAsked reads the rule that a request sets, and whether it is a dry run.
func pricingAsked(c *gin.Context) (dryRun bool, rule *evently.PricingRule, err error) {
	switch c.Query("dry_run") {
	case "", "false":
	case "true":
		dryRun = true
	default:
		return false, nil, invalid("dry_run", "must be true or false")
	}
	var body pricingRuleBody
	if err := decode(c, &body); err != nil {
		return false, nil, err
	}
	rule, err = body.rule()
	return dryRun, rule, err
}

func (s *Server) removePricing(c *gin.Context) error {
	state, err := s.matchedState(c, func() error { return nil })
	if err != nil {
		return err
	}
	event, err := s.priced(c, state, &evently.SetPricing{Version: state.Event.Version})
	if err != nil {
		return err
	}
	c.Writer.Header()["Etag"] = []string{eventTag(event)}
	writeNothing(c)
	return nil
}

// priced has the owner of an event decide about its rule, and returns the event as it is then, or in a dry run would be.
func (s *Server) priced(c *gin.Context, state *evently.State, command *evently.SetPricing) (*evently.Event, error) {
	reply, err := s.do(c, state.Event.ID, command)
	if err != nil || !command.DryRun {
		s.caches.changed(state.Event.ID) // what was refused may be news to this node
	}
	return reply.Event, err
}

// pricingRunBody is the body of POST /admin/pricing/run, which may be missing.
type pricingRunBody struct {
	DryRun  *bool   `json:"dry_run"`
	EventID *string `json:"event_id"`
}

// runPricing reprices the events of the organizer who asks, or everybody's for an admin, or one of them.
func (s *Server) runPricing(c *gin.Context) error {
	var body pricingRunBody
	if len(bodyOf(c)) > 0 {
		if err := decode(c, &body); err != nil {
			return err
		}
	}
	run := &evently.PriceRun{
		DryRun: body.DryRun != nil && *body.DryRun, Organizer: managedBy(c), Who: principal(c).User, RequestID: requestID(c), Trace: requestTrace(c),
	}
	if body.EventID != nil {
		id, err := evently.ParseEventID(*body.EventID)
		if err != nil {
			return evently.ErrEventNotFound // as in eventParam
		}
		if _, err := s.managedStateOf(c, id); err != nil {
			return err
		}
		run.Event = id
	}
	release, err := s.pricings.take(principal(c).User)
	if err != nil {
		return err
	}
	defer release()
	extendWriting(c, pricingRunMax+writeTimeout)
	report, err := s.config.Pricer.Run(c.Request.Context(), run)
	if err != nil {
		return err
	}
	if !run.DryRun {
		for i := range report.Changes {
			s.caches.changed(report.Changes[i].Event)
		}
	}
	writeJSON(c, http.StatusOK, newPricingRunJSON(report, run.DryRun))
	return nil
}

// writePricing answers with the rule of an event as it is or would be, the prices that it has now, and the next ones.
func writePricing(c *gin.Context, ruled, now, next *evently.Event) {
	c.Writer.Header()["Etag"] = []string{eventTag(now)}
	writeJSON(c, http.StatusOK, newPricingJSON(ruled.Pricing, now, next))
}
