package actors

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/evently/evently"
	"github.com/evently/evently/actors/eventpb"
)

// carry sends a message through its wire form.
func carry[M proto.Message](t interface{ Fatal(...any) }, message, into M) M {
	data, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
	return into
}

func anyTime(t *rapid.T, label string) time.Time {
	from, to := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
	return time.UnixMilli(rapid.Int64Range(from.UnixMilli(), to.UnixMilli()).Draw(t, label)).UTC()
}

func maybeTime(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, label+" set") {
		return anyTime(t, label)
	}
	return time.Time{}
}

var anyPrice = rapid.Int64Range(0, evently.PriceMinorMax)

var anyItems = rapid.Custom(func(t *rapid.T) evently.Items {
	tiers := rapid.SliceOfNDistinct(rapid.IntRange(0, evently.TiersMax-1), 1, evently.TiersMax, rapid.ID).Draw(t, "tiers")
	list := make([]evently.Item, len(tiers))
	for i, tier := range tiers {
		list[i] = evently.Item{
			Tier: tier, Quantity: rapid.IntRange(1, evently.MaxPerBookingMax).Draw(t, "quantity"), UnitPriceMinor: anyPrice.Draw(t, "price"),
		}
	}
	items, err := evently.NewItems(list...)
	if err != nil {
		t.Fatal(err)
	}
	return items
})

// anyDetails are valid.
var anyDetails = rapid.Custom(func(t *rapid.T) evently.EventDetails {
	text := rapid.StringMatching(`[a-zA-Zäöü€𝄞"\\<>&\t\n %_]{0,20}`)
	d := evently.EventDetails{
		Name: "n" + text.Draw(t, "name"), Description: text.Draw(t, "description"), Category: text.Draw(t, "category"),
		Venue: text.Draw(t, "venue"), City: text.Draw(t, "city"),
		Timezone: rapid.SampledFrom([]string{"UTC", "Europe/Berlin"}).Draw(t, "zone"), Currency: rapid.StringMatching(`[A-Z]{3}`).Draw(t, "currency"),
		StartsAt:      anyTime(t, "start"),
		SalesStartAt:  maybeTime(t, "sales start"),
		HoldTTL:       time.Duration(rapid.IntRange(1, 7*24*3600).Draw(t, "ttl")) * time.Second,
		MaxPerBooking: rapid.IntRange(1, evently.MaxPerBookingMax).Draw(t, "max"),
		MaxPerUser:    rapid.IntRange(0, evently.MaxPerUserMax).Draw(t, "max of a user"),
	}
	d.EndsAt = d.StartsAt.Add(time.Hour)
	if !d.SalesStartAt.IsZero() && rapid.Bool().Draw(t, "sales end set") {
		d.SalesEndAt = d.SalesStartAt.Add(time.Millisecond)
	}
	for range rapid.IntRange(1, evently.TiersMax).Draw(t, "tiers") {
		d.Tiers = append(d.Tiers, evently.Tier{
			Name: "t" + text.Draw(t, "tier"), Capacity: rapid.IntRange(0, evently.CapacityMax/evently.TiersMax).Draw(t, "capacity"),
			BasePriceMinor: anyPrice.Draw(t, "base"), PriceMinor: anyPrice.Draw(t, "price"),
		})
	}
	if last := &d.Tiers[len(d.Tiers)-1]; len(d.Tiers) > 1 && rapid.Bool().Draw(t, "retired") {
		last.Capacity, last.Retired = 0, true
	}
	return d
}).Filter(func(d evently.EventDetails) bool { return d.Validate() == nil })

// anyRule is valid, or nil.
var anyRule = rapid.Custom(func(t *rapid.T) *evently.PricingRule {
	if rapid.Bool().Draw(t, "no rule") {
		return nil
	}
	points := func(label string, atMax int) (points []evently.PricePoint) {
		places := rapid.SliceOfNDistinct(rapid.IntRange(0, atMax), 0, evently.PricingPointsMax, rapid.ID).Draw(t, label)
		slices.Sort(places)
		for _, at := range places {
			points = append(points, evently.PricePoint{At: at, FactorBps: rapid.IntRange(0, evently.FactorBpsMax).Draw(t, "factor")})
		}
		return points
	}
	rule := &evently.PricingRule{
		Curve: points("curve", evently.DemandBpsMax), Time: points("time", evently.HoursBeforeMax),
		Step: evently.PriceStep{
			EverySeats: rapid.IntRange(1, evently.CapacityMax).Draw(t, "every"), AddMinor: anyPrice.Draw(t, "add"),
		},
		FloorBps: rapid.IntRange(0, evently.FactorBpsMax).Draw(t, "floor"), CeilingBps: evently.FactorBpsMax,
		RoundMinor: rapid.Int64Range(0, evently.RoundMinorMax).Draw(t, "round"),
		Rounding:   rapid.SampledFrom([]evently.Rounding{evently.RoundNearest, evently.RoundUp, evently.RoundDown}).Draw(t, "rounding"),
	}
	if err := rule.Validate(); err != nil {
		t.Fatal(err)
	}
	return rule
})

var anyPriority = rapid.IntRange(-evently.PriorityMax, evently.PriorityMax)

var anyOnRelease = rapid.SampledFrom([]evently.OnRelease{evently.BookOnRelease, evently.HoldOnRelease})

var anyCommand = rapid.Custom(func(t *rapid.T) evently.Command {
	user, token := evently.UserID(rapid.Uint64().Draw(t, "user")), evently.Token(rapid.Uint64Min(1).Draw(t, "token"))
	items := func() evently.Items {
		if rapid.Bool().Draw(t, "items") {
			return anyItems.Draw(t, "items")
		}
		return evently.OneItem(evently.Item{Tier: evently.OnlyTier, Quantity: rapid.IntRange(1, evently.MaxPerBookingMax).Draw(t, "quantity")})
	}
	key := func() evently.Key {
		return evently.Key{Hi: rapid.Uint64().Draw(t, "key hi"), Lo: rapid.Uint64Min(1).Draw(t, "key lo")}
	}
	switch kind := rapid.IntRange(0, 13).Draw(t, "command"); kind {
	case 0:
		return &evently.Book{User: user, Token: token, Items: items(), Key: key()}
	case 1:
		return &evently.Confirm{User: user, Token: token}
	case 2:
		return &evently.Release{User: user, Token: token}
	case 3:
		return &evently.Cancel{User: user, Token: token}
	case 4:
		return &evently.Revise{Version: rapid.Uint64().Draw(t, "version"), Details: anyDetails.Draw(t, "details")}
	case 5:
		return &evently.JoinWaitlist{User: user, Token: token, Items: items(), Key: key(), OnRelease: anyOnRelease.Draw(t, "on release")}
	case 6:
		return &evently.LeaveWaitlist{User: user}
	case 7:
		return &evently.Prioritize{Token: token, Priority: anyPriority.Draw(t, "priority")}
	case 8:
		return &evently.SetPricing{
			Version: rapid.Uint64().Draw(t, "version"), Rule: anyRule.Draw(t, "rule"), DryRun: rapid.Bool().Draw(t, "dry"),
		}
	case 9:
		return &evently.Reprice{DryRun: rapid.Bool().Draw(t, "dry")}
	default:
		return []evently.Command{&evently.Expire{}, &evently.Publish{}, &evently.CancelEvent{}, &evently.Sweep{}}[kind-10]
	}
})

var anyRequest = rapid.Custom(func(t *rapid.T) *evently.Request {
	return &evently.Request{
		Event: evently.EventID(rapid.Uint64Min(1).Draw(t, "event")), Command: anyCommand.Draw(t, "command"),
		Who: evently.UserID(rapid.Uint64().Draw(t, "who")), ID: rapid.StringMatching(`[a-zA-Z0-9._-]{0,40}`).Draw(t, "id"),
		Trace: rapid.StringMatching(`(00-[1-9a-f][0-9a-f]{31}-[1-9a-f][0-9a-f]{15}-[0-9a-f]{2})?`).Draw(t, "trace"),
	}
})

// anyReplyTo is what an owner may answer.
func anyReplyTo(t *rapid.T, request *evently.Request) (reply evently.Reply) {
	reservation := func(user evently.UserID, token evently.Token) {
		reply.Reservation = evently.Reservation{
			ID: evently.ReservationID{Event: request.Event, Token: token}, User: user,
			Status: evently.ReservationStatus(rapid.Uint8Max(uint8(evently.Expired)).Draw(t, "status")), Items: anyItems.Draw(t, "items"),
			Currency: "EUR", CreatedAt: anyTime(t, "created"), ExpiresAt: anyTime(t, "expires"), ConfirmedAt: maybeTime(t, "confirmed"),
			EndedAt: maybeTime(t, "ended"), Seq: rapid.Uint64().Draw(t, "seq"),
		}
	}
	waiter := func(user evently.UserID, token evently.Token) {
		reply.Waiter = &evently.Waiter{
			ID: evently.WaiterID{Event: request.Event, Token: token}, User: user, Items: anyItems.Draw(t, "items"),
			OnRelease: anyOnRelease.Draw(t, "on release"), Priority: anyPriority.Draw(t, "priority"),
			Position: rapid.IntRange(1, evently.WaitersMax).Draw(t, "position"),
			Status:   evently.WaiterStatus(rapid.Uint8Max(uint8(evently.Closed)).Draw(t, "status")),
			JoinedAt: anyTime(t, "joined"), EndedAt: maybeTime(t, "ended"), JoinedSeq: rapid.Uint64().Draw(t, "joined seq"),
			Seq: rapid.Uint64().Draw(t, "seq"),
		}
	}
	switch c := request.Command.(type) {
	case *evently.JoinWaitlist:
		waiter(c.User, evently.Token(rapid.Uint64Min(1).Draw(t, "token")))
		reply.Replayed = rapid.Bool().Draw(t, "replayed")
	case *evently.LeaveWaitlist:
		waiter(c.User, evently.Token(rapid.Uint64Min(1).Draw(t, "token")))
		if rapid.Bool().Draw(t, "was served") {
			reservation(c.User, reply.Waiter.ID.Token)
		}
	case *evently.Prioritize:
		waiter(evently.UserID(rapid.Uint64().Draw(t, "user")), c.Token)
	case *evently.Book:
		reservation(c.User, evently.Token(rapid.Uint64Min(1).Draw(t, "token")))
		reply.Replayed = rapid.Bool().Draw(t, "replayed")
	case *evently.Confirm:
		reservation(c.User, c.Token)
	case *evently.Release:
		reservation(c.User, c.Token)
	case *evently.Cancel:
		reservation(c.User, c.Token)
	case *evently.Revise, *evently.Publish, *evently.CancelEvent, *evently.SetPricing, *evently.Reprice:
		reply.Event = &evently.Event{
			ID: request.Event, Organizer: evently.UserID(rapid.Uint64().Draw(t, "organizer")),
			Status:  evently.EventStatus(rapid.Uint8Max(uint8(evently.EventCancelled)).Draw(t, "status")),
			Version: rapid.Uint64().Draw(t, "version"), CreatedAt: anyTime(t, "created"),
			Pricing: anyRule.Draw(t, "rule"), EventDetails: anyDetails.Draw(t, "details"),
		}
	}
	return reply
}

var anyRefusal = rapid.Custom(func(t *rapid.T) *evently.Error {
	codes := make([]evently.Code, 0, len(refusals))
	for code := range refusals {
		codes = append(codes, code)
	}
	refusal := &evently.Error{
		Code: rapid.SampledFrom(codes).Draw(t, "code"), Detail: rapid.String().Draw(t, "detail"),
		Available:  rapid.IntRange(0, evently.CapacityMax).Draw(t, "available"),
		RetryAfter: time.Duration(rapid.Int64Range(0, retryAfterMax.Milliseconds()).Draw(t, "retry")) * time.Millisecond,
	}
	for range rapid.IntRange(0, 100).Draw(t, "fields") {
		refusal.Fields.Add(rapid.String().Draw(t, "field"), rapid.String().Draw(t, "message"))
	}
	return refusal
})

func TestCodec_RequestsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRequest.Draw(t, "request")
		got, err := decodeRequest(carry(t, encodeRequest(want), &eventpb.Request{}), want.Event)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v (%v), want %+v", got, err, want)
		}
	})
}

func TestCodec_RepliesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		request := anyRequest.Draw(t, "request")
		want := anyReplyTo(t, request)
		got, err := decodeOutcome(carry(t, encodeOutcome(&want, nil), &eventpb.Response{}), request)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v (%v), want %+v", got, err, want)
		}
	})
}

func TestCodec_RefusalsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRefusal.Draw(t, "refusal")
		reply, err := decodeOutcome(carry(t, encodeOutcome(&evently.Reply{}, want), &eventpb.Response{}), book(1, 1))
		if !reflect.DeepEqual(err, error(want)) || !reflect.DeepEqual(reply, evently.Reply{}) {
			t.Fatalf("got %+v %+v, want %+v", reply, err, want)
		}
	})
	for _, want := range []error{errMoved, errUnresolved} {
		_, err := decodeOutcome(carry(t, encodeOutcome(&evently.Reply{}, want), &eventpb.Response{}), book(1, 1))
		if !errors.Is(err, want) || errors.Is(err, errGarbled) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// A code that is new has to be sorted out, or callers on other nodes would not be told.
func TestCodec_KnowsTheCodesOfOwners(t *testing.T) {
	others := map[evently.Code]bool{ // no event actor refuses with these
		evently.CodeUnauthenticated: true, evently.CodeInvalidCredentials: true, evently.CodeForbidden: true,
		evently.CodeEmailUnverified: true, evently.CodeNotFound: true, evently.CodeEventNotDraft: true,
		evently.CodeIdempotencyKeyRequired: true, evently.CodeVersionRequired: true, evently.CodeRateLimited: true,
		evently.CodeInvalidCode: true, evently.CodeLastAdmin: true, evently.CodeWebhookLimitReached: true, evently.CodeWebhookDisabled: true,
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, _ := node.(*ast.ValueSpec)
		if spec == nil {
			return true
		}
		if name, _ := spec.Type.(*ast.Ident); name == nil || name.Name != "Code" {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if code := evently.Code(text); err != nil || refusals[code] == others[code] {
			t.Errorf("code %s (%v) must be either an owner's or not", code, err)
		}
		found++
		return true
	})
	if want := len(refusals) + len(others); found != want {
		t.Errorf("%d codes in error.go, %d known", found, want)
	}
}

func TestCodec_GarbledAnswersAreUnresolved(t *testing.T) {
	request := book(1, 1)
	confirm := &evently.Request{Event: 77, Command: &evently.Confirm{User: 7, Token: 1}}
	publish := &evently.Request{Event: 77, Command: &evently.Publish{}}
	good := func() *eventpb.Reservation {
		return &eventpb.Reservation{Event: 77, Token: 1, User: 7, Items: []*eventpb.Item{{Quantity: 1}}}
	}
	join := &evently.Request{Event: 77, Command: &evently.JoinWaitlist{User: 7, Token: 1}}
	leave := &evently.Request{Event: 77, Command: &evently.LeaveWaitlist{User: 7}}
	prioritize := &evently.Request{Event: 77, Command: &evently.Prioritize{Token: 1, Priority: 3}}
	setPricing := &evently.Request{Event: 77, Command: &evently.SetPricing{}}
	waiting := func(change func(*eventpb.Reply)) *eventpb.Response {
		reply := &eventpb.Reply{Waiter: &eventpb.Waiter{Event: 77, Token: 1, User: 7, Position: 1, Items: []*eventpb.Item{{Quantity: 1}}}}
		change(reply)
		return &eventpb.Response{Outcome: &eventpb.Response_Reply{Reply: reply}}
	}
	event := func() *eventpb.Event { return encodeEvent(newEvent(5)) }
	reservation := func(change func(*eventpb.Reservation)) *eventpb.Response {
		r := good()
		change(r)
		return &eventpb.Response{Outcome: &eventpb.Response_Reply{Reply: &eventpb.Reply{Reservation: r}}}
	}
	changed := func(change func(*eventpb.Event)) *eventpb.Response {
		e := event()
		change(e)
		return &eventpb.Response{Outcome: &eventpb.Response_Reply{Reply: &eventpb.Reply{Event: e}}}
	}
	refusal := func(e *eventpb.Error) *eventpb.Response {
		return &eventpb.Response{Outcome: &eventpb.Response_Error{Error: e}}
	}
	for request, response := range map[*evently.Request]*eventpb.Response{
		request: reservation(func(*eventpb.Reservation) {}), confirm: reservation(func(*eventpb.Reservation) {}),
		publish: changed(func(*eventpb.Event) {}), setPricing: changed(func(e *eventpb.Event) { e.Pricing = &eventpb.PricingRule{} }),
		join: waiting(func(*eventpb.Reply) {}), leave: waiting(func(r *eventpb.Reply) { r.Reservation = good() }),
		prioritize: waiting(func(r *eventpb.Reply) { r.Waiter.User = 8 }),
	} {
		if _, err := decodeOutcome(response, request); err != nil {
			t.Fatalf("the right answer to %T: %v", request.Command, err)
		}
	}
	for name, test := range map[string]struct {
		request *evently.Request
		answer  any
	}{
		"nothing":               {request, nil},
		"another type":          {request, &eventpb.Request{}},
		"nil":                   {request, (*eventpb.Response)(nil)},
		"no outcome":            {request, &eventpb.Response{}},
		"empty oneof":           {request, &eventpb.Response{Outcome: &eventpb.Response_Reply{}}},
		"no reservation":        {request, &eventpb.Response{Outcome: &eventpb.Response_Reply{Reply: &eventpb.Reply{}}}},
		"no event":              {publish, &eventpb.Response{Outcome: &eventpb.Response_Reply{Reply: &eventpb.Reply{}}}},
		"no token":              {request, reservation(func(r *eventpb.Reservation) { r.Token = 0 })},
		"another event's":       {request, reservation(func(r *eventpb.Reservation) { r.Event++ })},
		"another user's":        {request, reservation(func(r *eventpb.Reservation) { r.User++ })},
		"another reservation":   {confirm, reservation(func(r *eventpb.Reservation) { r.Token++ })},
		"unknown status":        {request, reservation(func(r *eventpb.Reservation) { r.Status = 4 })},
		"no items":              {request, reservation(func(r *eventpb.Reservation) { r.Items = nil })},
		"nil item":              {request, reservation(func(r *eventpb.Reservation) { r.Items[0] = nil })},
		"too many items":        {request, reservation(func(r *eventpb.Reservation) { r.Items = make([]*eventpb.Item, 1e6) })},
		"a tier twice":          {request, reservation(func(r *eventpb.Reservation) { r.Items = append(r.Items, r.Items[0]) })},
		"no such tier":          {request, reservation(func(r *eventpb.Reservation) { r.Items[0].Tier = evently.OnlyTier })},
		"negative price":        {request, reservation(func(r *eventpb.Reservation) { r.Items[0].UnitPriceMinor = -1 })},
		"year 10000":            {request, reservation(func(r *eventpb.Reservation) { r.ExpiresAtMs = timeMax + 1 })},
		"another event":         {publish, changed(func(e *eventpb.Event) { e.Id++ })},
		"unknown event status":  {publish, changed(func(e *eventpb.Event) { e.Status = 3 })},
		"no details":            {publish, changed(func(e *eventpb.Event) { e.Details = nil })},
		"no tiers":              {publish, changed(func(e *eventpb.Event) { e.Details.Tiers = nil })},
		"capacity":              {publish, changed(func(e *eventpb.Event) { e.Details.Tiers[0].Capacity = evently.CapacityMax + 1 })},
		"hold for ever":         {publish, changed(func(e *eventpb.Event) { e.Details.HoldTtlMs = 1 << 62 })},
		"before 1970":           {publish, changed(func(e *eventpb.Event) { e.Details.StartsAtMs = -1 })},
		"a greater limit":       {publish, changed(func(e *eventpb.Event) { e.Details.MaxPerUser = evently.MaxPerUserMax + 1 })},
		"no event with prices":  {setPricing, &eventpb.Response{Outcome: &eventpb.Response_Reply{Reply: &eventpb.Reply{}}}},
		"great factors":         {setPricing, changed(func(e *eventpb.Event) { e.Pricing = &eventpb.PricingRule{FloorBps: 1 << 31} })},
		"a great addition":      {setPricing, changed(func(e *eventpb.Event) { e.Pricing = &eventpb.PricingRule{StepAddMinor: 1 << 62} })},
		"many points":           {setPricing, changed(func(e *eventpb.Event) { e.Pricing = &eventpb.PricingRule{Time: make([]*eventpb.PricePoint, 33)} })},
		"unknown rounding":      {setPricing, changed(func(e *eventpb.Event) { e.Pricing = &eventpb.PricingRule{Rounding: 3} })},
		"no waiter":             {join, &eventpb.Response{Outcome: &eventpb.Response_Reply{Reply: &eventpb.Reply{}}}},
		"a waiter's event":      {join, waiting(func(r *eventpb.Reply) { r.Waiter.Event++ })},
		"a waiter's user":       {join, waiting(func(r *eventpb.Reply) { r.Waiter.User++ })},
		"a waiter's items":      {join, waiting(func(r *eventpb.Reply) { r.Waiter.Items = nil })},
		"a waiter's token":      {join, waiting(func(r *eventpb.Reply) { r.Waiter.Token = 0 })},
		"a waiter's status":     {join, waiting(func(r *eventpb.Reply) { r.Waiter.Status = 4 })},
		"a waiter's wish":       {join, waiting(func(r *eventpb.Reply) { r.Waiter.OnRelease = 2 })},
		"a waiter's position":   {join, waiting(func(r *eventpb.Reply) { r.Waiter.Position = 0 })},
		"a waiter's priority":   {join, waiting(func(r *eventpb.Reply) { r.Waiter.Priority = evently.PriorityMax + 1 })},
		"a waiter's time":       {join, waiting(func(r *eventpb.Reply) { r.Waiter.EndedAtMs = -1 })},
		"who leaves":            {leave, waiting(func(r *eventpb.Reply) { r.Waiter.User++ })},
		"another's offer":       {leave, waiting(func(r *eventpb.Reply) { r.Reservation = good(); r.Reservation.Token++ })},
		"another waiter":        {prioritize, waiting(func(r *eventpb.Reply) { r.Waiter.Token++ })},
		"no code":               {request, refusal(nil)},
		"unknown code":          {request, refusal(&eventpb.Error{Code: "invented"})},
		"more than ever was":    {request, refusal(&eventpb.Error{Code: "sold_out", Available: 1 << 31})},
		"come again next month": {request, refusal(&eventpb.Error{Code: "overloaded", RetryAfterMs: 1 << 31})},
	} {
		if reply, err := decodeAnswer(test.answer, test.request); !errors.Is(err, errUnresolved) || !errors.Is(err, errGarbled) {
			t.Errorf("%s: got %+v %v, want %v", name, reply, err, errGarbled)
		}
	}
}

func TestCodec_UndecidableRequestsAreRefused(t *testing.T) {
	asked := func(change func(*eventpb.Book)) *eventpb.Request {
		message := encodeRequest(book(1, 1))
		change(message.GetBook())
		return message
	}
	revision := func(change func(*eventpb.EventDetails)) *eventpb.Request {
		details := encodeDetails(&newEvent(1).EventDetails)
		change(details)
		return &eventpb.Request{Event: 77, Command: &eventpb.Request_Revise{Revise: &eventpb.Revise{Details: details}}}
	}
	joining := func(change func(*eventpb.JoinWaitlist)) *eventpb.Request {
		message := &eventpb.JoinWaitlist{User: 7, KeyLo: 1, Token: 1, Items: []*eventpb.Item{{Quantity: 1}}}
		change(message)
		return &eventpb.Request{Event: 77, Command: &eventpb.Request_JoinWaitlist{JoinWaitlist: message}}
	}
	pricing := func(rule *eventpb.PricingRule) *eventpb.Request {
		return &eventpb.Request{Event: 77, Command: &eventpb.Request_SetPricing{SetPricing: &eventpb.SetPricing{Rule: rule}}}
	}
	falling := []*eventpb.PricePoint{{At: 5}, {At: 4}}
	urgent := &eventpb.Prioritize{Token: 1, Priority: -evently.PriorityMax - 1}
	for name, test := range map[string]struct {
		message *eventpb.Request
		want    evently.Code
	}{
		"waits without a token": {joining(func(m *eventpb.JoinWaitlist) { m.Token = 0 }), evently.CodeInternal},
		"waits without a key":   {joining(func(m *eventpb.JoinWaitlist) { m.KeyLo = 0 }), evently.CodeInternal},
		"waits for nothing":     {joining(func(m *eventpb.JoinWaitlist) { m.Items = nil }), evently.CodeInvalidRequest},
		"waits for the rest":    {joining(func(m *eventpb.JoinWaitlist) { m.OnRelease = 2 }), evently.CodeInternal},
		"priority":              {&eventpb.Request{Event: 77, Command: &eventpb.Request_Prioritize{Prioritize: urgent}}, evently.CodeInternal},
		"rule out of bounds":    {pricing(&eventpb.PricingRule{RoundMinor: -1}), evently.CodeInternal},
		"rule out of order":     {pricing(&eventpb.PricingRule{Curve: falling}), evently.CodeInvalidRequest},
		"no command":            {&eventpb.Request{Event: 77}, evently.CodeUnavailable},
		"nil":                   {nil, evently.CodeInternal},
		"another event":         {&eventpb.Request{Event: 78, Command: &eventpb.Request_Expire{}}, evently.CodeInternal},
		"empty oneof":           {&eventpb.Request{Event: 77, Command: &eventpb.Request_Book{}}, evently.CodeInternal},
		"no token":              {asked(func(b *eventpb.Book) { b.Token = 0 }), evently.CodeInternal},
		"no key":                {asked(func(b *eventpb.Book) { b.KeyHi, b.KeyLo = 0, 0 }), evently.CodeInternal},
		"no items":              {asked(func(b *eventpb.Book) { b.Items = nil }), evently.CodeInvalidRequest},
		"too many items":        {asked(func(b *eventpb.Book) { b.Items = make([]*eventpb.Item, 1e6) }), evently.CodeInternal},
		"no seats":              {asked(func(b *eventpb.Book) { b.Items[0].Quantity = 0 }), evently.CodeInvalidRequest},
		"no seats, any tier":    {asked(func(b *eventpb.Book) { b.Items[0].Quantity, b.Items[0].Tier = 0, -1 }), evently.CodeInternal},
		"all seats":             {asked(func(b *eventpb.Book) { b.Items[0].Quantity = 1 << 31 }), evently.CodeInvalidRequest},
		"tier -2":               {asked(func(b *eventpb.Book) { b.Items[0].Tier = -2 }), evently.CodeInvalidRequest},
		"no details":            {&eventpb.Request{Event: 77, Command: &eventpb.Request_Revise{}}, evently.CodeInternal},
		"no name":               {revision(func(d *eventpb.EventDetails) { d.Name = "" }), evently.CodeInvalidRequest},
		"nil tier":              {revision(func(d *eventpb.EventDetails) { d.Tiers[0] = nil }), evently.CodeInvalidRequest},
		"far time zone":         {revision(func(d *eventpb.EventDetails) { d.Timezone = "../../../etc/passwd" }), evently.CodeInvalidRequest},
	} {
		got, err := decodeRequest(test.message, 77)
		var refusal *evently.Error
		if !errors.As(err, &refusal) || refusal.Code != test.want || !refusals[refusal.Code] {
			t.Errorf("%s: got %+v %v, want %s", name, got, err, test.want)
		}
	}
	if _, err := decodeRequest(revision(func(*eventpb.EventDetails) {}), 77); err != nil {
		t.Errorf("the right revision: %v", err)
	}
}

// unknown are fields that a later version may have added: of each wire type, and a message with one more inside.
func unknown() []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 901, protowire.Fixed64Type), 2)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 902, protowire.Fixed32Type), 3)
	return protowire.AppendBytes(protowire.AppendTag(b, 903, protowire.BytesType), protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 4))
}

// later returns the message as a later version sends it, with fields here and in messages inside that are new, through its wire form.
func later[M proto.Message](t interface{ Fatal(...any) }, message, into M) M {
	var add func(protoreflect.Message)
	add = func(m protoreflect.Message) {
		m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
			switch {
			case field.Message() == nil:
			case field.IsList():
				for i := range value.List().Len() {
					add(value.List().Get(i).Message())
				}
			default:
				add(value.Message())
			}
			return true
		})
		m.SetUnknown(unknown())
	}
	add(message.ProtoReflect())
	return carry(t, message, into)
}

// Nodes of two versions understand each other during an upgrade.
func TestCodec_IgnoresFieldsOfLaterVersions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		request := anyRequest.Draw(t, "request")
		got, err := decodeRequest(later(t, encodeRequest(request), &eventpb.Request{}), request.Event)
		if err != nil || !reflect.DeepEqual(got, request) {
			t.Fatalf("got %+v (%v), want %+v", got, err, request)
		}
		want := anyReplyTo(t, request)
		reply, err := decodeOutcome(later(t, encodeOutcome(&want, nil), &eventpb.Response{}), request)
		if err != nil || !reflect.DeepEqual(reply, want) {
			t.Fatalf("got %+v (%v), want %+v", reply, err, want)
		}
		refusal := anyRefusal.Draw(t, "refusal")
		_, err = decodeOutcome(later(t, encodeOutcome(&evently.Reply{}, refusal), &eventpb.Response{}), request)
		if !reflect.DeepEqual(err, error(refusal)) {
			t.Fatalf("got %+v, want %+v", err, refusal)
		}
		for _, want := range []error{errMoved, errUnresolved} {
			_, err := decodeOutcome(later(t, encodeOutcome(&evently.Reply{}, want), &eventpb.Response{}), request)
			if !errors.Is(err, want) || errors.Is(err, errGarbled) {
				t.Fatalf("got %v, want %v", err, want)
			}
		}
	})
}

// A command or an outcome of a later version arrives as a field that is not known, and none of those that are.
func TestCodec_UnknownCommandsAndOutcomesOfLaterVersions(t *testing.T) {
	command := encodeRequest(book(1, 1))
	command.Command = nil
	if got, err := decodeRequest(later(t, command, &eventpb.Request{}), 77); !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("command: got %+v %v, want %v", got, err, evently.ErrUnavailable)
	}
	if reply, err := decodeOutcome(later(t, &eventpb.Response{}, &eventpb.Response{}), book(1, 1)); !errors.Is(err, errUnresolved) {
		t.Errorf("outcome: got %+v %v, want %v", reply, err, errUnresolved)
	}
	code := encodeOutcome(&evently.Reply{}, &evently.Error{Code: "seat_taken_by_ghost", Detail: "Boo."})
	if reply, err := decodeOutcome(later(t, code, &eventpb.Response{}), book(1, 1)); !errors.Is(err, errUnresolved) {
		t.Errorf("code: got %+v %v, want %v", reply, err, errUnresolved)
	}
}

func TestCodec_TraceparentsOfAnotherFormAreIgnored(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, trace := range []string{
		"", "x", good[:54], good + "0", good + "-more", strings.Repeat("0", 55), strings.Repeat("-", 55), strings.ToUpper(good),
		good[:54] + "\n", good[:54] + "g", strings.Replace(good, "-", "0", 1), strings.Replace(good, "4b", "4-", 1),
	} {
		request := book(1, 1)
		request.Trace = trace
		if got := encodeRequest(request).Traceparent; got != "" {
			t.Errorf("%q is sent as %q", trace, got)
		}
		message := encodeRequest(book(1, 1))
		message.Traceparent = trace
		got, err := decodeRequest(message, 77)
		if err != nil || got.Trace != "" || evently.TraceID(trace) != "" {
			t.Errorf("%q is read as %+v %v, trace id %q", trace, got, err, evently.TraceID(trace))
		}
	}
	if got := evently.TraceID(good); got != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("trace id %q", got)
	}
}

// Whatever bytes come, the box office survives what is made of them, and it comes out the same after another hop.
func FuzzDecodeRequest(f *testing.F) {
	details := newEvent(3).EventDetails
	for _, command := range []evently.Command{
		book(1, 2).Command, &evently.Book{User: 1, Key: evently.Key{Lo: 1}, Token: 2, Items: evently.OneItem(evently.Item{Tier: -1, Quantity: 1})},
		&evently.Confirm{User: 7, Token: 1}, &evently.Release{User: 7, Token: 1}, &evently.Cancel{User: 7, Token: 1}, &evently.Expire{},
		&evently.Revise{Version: 1, Details: details}, &evently.Publish{}, &evently.CancelEvent{}, &evently.Sweep{},
		&evently.JoinWaitlist{User: 7, Key: evently.Key{Lo: 2}, Token: 3, Items: evently.OneItem(evently.Item{Quantity: 1}), OnRelease: 1},
		&evently.LeaveWaitlist{User: 7}, &evently.Prioritize{Token: 3, Priority: -4}, &evently.SetPricing{Version: 1, DryRun: true},
		&evently.SetPricing{Version: 1, Rule: &evently.PricingRule{Curve: []evently.PricePoint{{At: 1, FactorBps: 20_000}}}},
		&evently.Reprice{DryRun: true},
	} {
		data, err := proto.Marshal(encodeRequest(&evently.Request{
			Event: 77, Who: 7, ID: "r", Command: command, Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		message := &eventpb.Request{}
		if proto.Unmarshal(data, message) != nil {
			return
		}
		request, err := decodeRequest(message, 77)
		if err != nil {
			var refusal *evently.Error
			if !errors.As(err, &refusal) || !refusals[refusal.Code] {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		again, err := decodeRequest(carry(t, encodeRequest(request), &eventpb.Request{}), 77)
		if err != nil || !reflect.DeepEqual(again, request) {
			t.Fatalf("got %+v (%v) after another hop, had %+v", again, err, request)
		}
		office := NewBoxOffice[int](newTenure(newEvent(3)))
		office.Step(1, request, opening)
		office.Step(2, request, opening)
		office.Flush()
		answers, _ := office.Committed(opening)
		for i := range answers {
			response := carry(t, encodeOutcome(&answers[i].Reply, answers[i].Err), &eventpb.Response{})
			reply, err := decodeOutcome(response, request)
			if !reflect.DeepEqual(reply, answers[i].Reply) || !reflect.DeepEqual(err, answers[i].Err) {
				t.Fatalf("answered %+v %v, came through as %+v %v", answers[i].Reply, answers[i].Err, reply, err)
			}
		}
	})
}

func FuzzDecodeOutcome(f *testing.F) {
	requests := []*evently.Request{book(1, 2)}
	for _, command := range []evently.Command{&evently.Confirm{User: 7, Token: 1}, &evently.Publish{}, &evently.Expire{}} {
		requests = append(requests, &evently.Request{Event: 77, Command: command})
	}
	office := NewBoxOffice[int](newTenure(newEvent(3)))
	for _, request := range append(requests, book(2, 2)) {
		office.Step(0, request, opening)
	}
	for _, command := range []evently.Command{
		&evently.JoinWaitlist{User: 7, Key: evently.Key{Lo: 2}, Token: 3, Items: evently.OneItem(evently.Item{Quantity: 2}), OnRelease: 1},
		&evently.Prioritize{Token: 3, Priority: 1}, &evently.LeaveWaitlist{User: 7}, &evently.Reprice{},
	} {
		requests = append(requests, &evently.Request{Event: 77, Command: command})
		office.Step(0, requests[len(requests)-1], opening)
	}
	office.Flush()
	answers, _ := office.Committed(opening)
	for i := range answers {
		data, err := proto.Marshal(encodeOutcome(&answers[i].Reply, answers[i].Err))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		message := &eventpb.Response{}
		if proto.Unmarshal(data, message) != nil {
			return
		}
		for _, request := range requests {
			reply, err := decodeOutcome(message, request)
			var refusal *evently.Error
			switch {
			case err == nil || errors.As(err, &refusal):
				again, sameErr := decodeOutcome(carry(t, encodeOutcome(&reply, err), &eventpb.Response{}), request)
				if !reflect.DeepEqual(again, reply) || !reflect.DeepEqual(sameErr, err) {
					t.Fatalf("got %+v %v after another hop, had %+v %v", again, sameErr, reply, err)
				}
			case !errors.Is(err, errMoved) && !errors.Is(err, errUnresolved):
				t.Fatalf("got %v", err)
			}
		}
	})
}

// A booking's way to the owner and back, without the network.
func BenchmarkCodec_Book(b *testing.B) {
	request := book(1, 2)
	reply := evently.Reply{Reservation: evently.Reservation{
		ID: evently.ReservationID{Event: 77, Token: 1}, User: 7, Items: evently.OneItem(evently.Item{Quantity: 2, UnitPriceMinor: 500}),
		Currency: "EUR", CreatedAt: opening, ExpiresAt: opening.Add(time.Minute), Seq: 2,
	}}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		asked := carry(b, encodeRequest(request), &eventpb.Request{})
		if _, err := decodeRequest(asked, 77); err != nil {
			b.Fatal(err)
		}
		answered := carry(b, encodeOutcome(&reply, nil), &eventpb.Response{})
		if _, err := decodeOutcome(answered, request); err != nil {
			b.Fatal(err)
		}
		size = proto.Size(asked) + proto.Size(answered)
	}
	b.ReportMetric(float64(size), "wire-B/op")
}
