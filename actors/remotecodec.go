package actors

import (
	"errors"
	"fmt"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/actors/eventpb"
)

// Refusals of requests that the owner of an event cannot decide.
var (
	// Sent by a later version of the program: this node is upgraded soon.
	errUnknownCommand = &evently.Error{
		Code: evently.CodeUnavailable, Detail: "The event's node does not know this request yet; try again.",
		RetryAfter: evently.ErrUnavailable.RetryAfter,
	}
	errMalformed = &evently.Error{Code: evently.CodeInternal, Detail: "The request to the event's node was malformed."}
)

// refusals are the codes that an owner refuses with.
var refusals = map[evently.Code]bool{
	evently.CodeInvalidRequest:       true,
	evently.CodeEventNotFound:        true,
	evently.CodeReservationNotFound:  true,
	evently.CodeSoldOut:              true,
	evently.CodeEventNotOnSale:       true,
	evently.CodeEventCancelled:       true,
	evently.CodeQuantityExceedsLimit: true,
	evently.CodeUnknownTier:          true,
	evently.CodeIdempotencyKeyReused: true,
	evently.CodeReservationExpired:   true,
	evently.CodeReservationCancelled: true,
	evently.CodeReservationConfirmed: true,
	evently.CodeCapacityBelowSold:    true,
	evently.CodeVersionStale:         true,
	evently.CodeUserLimitExceeded:    true,
	evently.CodeSeatsAvailable:       true,
	evently.CodeAlreadyWaiting:       true,
	evently.CodeNotWaiting:           true,
	evently.CodeWaiterNotFound:       true,
	evently.CodeWaitlistFull:         true,
	evently.CodeOverloaded:           true,
	evently.CodeUnavailable:          true,
	evently.CodeInternal:             true,
}

// Bounds on what another node says, beyond which it is not believed.
const (
	timeMax       = 253402300799999 // the last millisecond of the year 9999
	retryAfterMax = time.Hour
)

// What is sent most often is allocated in one piece.
type (
	bookMessage struct {
		request eventpb.Request
		command eventpb.Request_Book
		book    eventpb.Book
	}
	reservationMessage struct {
		response    eventpb.Response
		outcome     eventpb.Response_Reply
		reply       eventpb.Reply
		reservation eventpb.Reservation
	}
)

// encodeRequest returns the message of a request, without a timeout. It panics when the command is none.
func encodeRequest(r *evently.Request) *eventpb.Request {
	piece := new(bookMessage)
	message := &piece.request
	message.Event, message.Who, message.RequestId, message.Traceparent = uint64(r.Event), uint64(r.Who), r.ID, evently.Traceparent(r.Trace)
	switch c := r.Command.(type) {
	case *evently.Book:
		book := &piece.book
		book.User, book.KeyHi, book.KeyLo, book.Token = uint64(c.User), c.Key.Hi, c.Key.Lo, uint64(c.Token)
		book.Items = encodeItems(&c.Items)
		piece.command.Book, message.Command = book, &piece.command
	case *evently.Confirm:
		message.Command = &eventpb.Request_Confirm{Confirm: &eventpb.Confirm{User: uint64(c.User), Token: uint64(c.Token)}}
	case *evently.Release:
		message.Command = &eventpb.Request_Release{Release: &eventpb.Release{User: uint64(c.User), Token: uint64(c.Token)}}
	case *evently.Cancel:
		message.Command = &eventpb.Request_Cancel{Cancel: &eventpb.Cancel{User: uint64(c.User), Token: uint64(c.Token)}}
	case *evently.Expire:
		message.Command = &eventpb.Request_Expire{Expire: &eventpb.Expire{}}
	case *evently.Revise:
		message.Command = &eventpb.Request_Revise{Revise: &eventpb.Revise{Version: c.Version, Details: encodeDetails(&c.Details)}}
	case *evently.Publish:
		message.Command = &eventpb.Request_Publish{Publish: &eventpb.Publish{}}
	case *evently.CancelEvent:
		message.Command = &eventpb.Request_CancelEvent{CancelEvent: &eventpb.CancelEvent{}}
	case *evently.Sweep:
		message.Command = &eventpb.Request_Sweep{Sweep: &eventpb.Sweep{}}
	case *evently.JoinWaitlist:
		message.Command = &eventpb.Request_JoinWaitlist{JoinWaitlist: &eventpb.JoinWaitlist{
			User: uint64(c.User), KeyHi: c.Key.Hi, KeyLo: c.Key.Lo, Token: uint64(c.Token), Items: encodeItems(&c.Items),
			OnRelease: uint32(c.OnRelease),
		}}
	case *evently.LeaveWaitlist:
		message.Command = &eventpb.Request_LeaveWaitlist{LeaveWaitlist: &eventpb.LeaveWaitlist{User: uint64(c.User)}}
	case *evently.Prioritize:
		message.Command = &eventpb.Request_Prioritize{Prioritize: &eventpb.Prioritize{Token: uint64(c.Token), Priority: int32(c.Priority)}}
	case *evently.SetPricing:
		message.Command = &eventpb.Request_SetPricing{SetPricing: &eventpb.SetPricing{
			Version: c.Version, Rule: encodePricing(c.Rule), DryRun: c.DryRun,
		}}
	case *evently.Reprice:
		message.Command = &eventpb.Request_Reprice{Reprice: &eventpb.Reprice{DryRun: c.DryRun}}
	default:
		panic(fmt.Sprintf("engine: unknown command %T", r.Command))
	}
	return message
}

// decodeRequest is the inverse of encodeRequest at the owner of an event. The request it returns is fit for the event's ledger.
// It returns an *Error for any other.
func decodeRequest(message *eventpb.Request, event evently.EventID) (*evently.Request, error) {
	if evently.EventID(message.GetEvent()) != event {
		return nil, errMalformed
	}
	r := &evently.Request{
		Event: event, Who: evently.UserID(message.GetWho()), ID: message.GetRequestId(), Trace: evently.Traceparent(message.GetTraceparent()),
	}
	switch c := message.GetCommand().(type) {
	case *eventpb.Request_Book:
		book := &evently.Book{
			User: evently.UserID(c.Book.GetUser()), Key: evently.Key{Hi: c.Book.GetKeyHi(), Lo: c.Book.GetKeyLo()},
			Token: evently.Token(c.Book.GetToken()),
		}
		if book.Token == 0 || book.Key == (evently.Key{}) {
			return nil, errMalformed
		}
		var err error
		if book.Items, err = decodeAskedItems(c.Book.GetItems()); err != nil {
			return nil, err
		}
		r.Command = book
	case *eventpb.Request_Confirm:
		r.Command = &evently.Confirm{User: evently.UserID(c.Confirm.GetUser()), Token: evently.Token(c.Confirm.GetToken())}
	case *eventpb.Request_Release:
		r.Command = &evently.Release{User: evently.UserID(c.Release.GetUser()), Token: evently.Token(c.Release.GetToken())}
	case *eventpb.Request_Cancel:
		r.Command = &evently.Cancel{User: evently.UserID(c.Cancel.GetUser()), Token: evently.Token(c.Cancel.GetToken())}
	case *eventpb.Request_Expire:
		r.Command = &evently.Expire{}
	case *eventpb.Request_Revise:
		details, ok := decodeDetails(c.Revise.GetDetails())
		if !ok {
			return nil, errMalformed
		}
		if err := details.Validate(); err != nil {
			return nil, err
		}
		r.Command = &evently.Revise{Version: c.Revise.GetVersion(), Details: details}
	case *eventpb.Request_Publish:
		r.Command = &evently.Publish{}
	case *eventpb.Request_CancelEvent:
		r.Command = &evently.CancelEvent{}
	case *eventpb.Request_Sweep:
		r.Command = &evently.Sweep{}
	case *eventpb.Request_JoinWaitlist:
		join := &evently.JoinWaitlist{
			User: evently.UserID(c.JoinWaitlist.GetUser()), Key: evently.Key{Hi: c.JoinWaitlist.GetKeyHi(), Lo: c.JoinWaitlist.GetKeyLo()},
			Token: evently.Token(c.JoinWaitlist.GetToken()), OnRelease: evently.OnRelease(c.JoinWaitlist.GetOnRelease()),
		}
		if join.Token == 0 || join.Key == (evently.Key{}) || c.JoinWaitlist.GetOnRelease() > uint32(evently.HoldOnRelease) {
			return nil, errMalformed
		}
		var err error
		if join.Items, err = decodeAskedItems(c.JoinWaitlist.GetItems()); err != nil {
			return nil, err
		}
		r.Command = join
	case *eventpb.Request_LeaveWaitlist:
		r.Command = &evently.LeaveWaitlist{User: evently.UserID(c.LeaveWaitlist.GetUser())}
	case *eventpb.Request_Prioritize:
		priority := int(c.Prioritize.GetPriority())
		if priority < -evently.PriorityMax || priority > evently.PriorityMax {
			return nil, errMalformed
		}
		r.Command = &evently.Prioritize{Token: evently.Token(c.Prioritize.GetToken()), Priority: priority}
	case *eventpb.Request_SetPricing:
		rule, ok := decodePricing(c.SetPricing.GetRule())
		if !ok {
			return nil, errMalformed
		}
		if rule != nil {
			if err := rule.Validate(); err != nil {
				return nil, err
			}
		}
		r.Command = &evently.SetPricing{Version: c.SetPricing.GetVersion(), Rule: rule, DryRun: c.SetPricing.GetDryRun()}
	case *eventpb.Request_Reprice:
		r.Command = &evently.Reprice{DryRun: c.Reprice.GetDryRun()}
	default:
		return nil, errUnknownCommand
	}
	return r, nil
}

// encodeOutcome returns the message of an answer.
func encodeOutcome(reply *evently.Reply, err error) *eventpb.Response {
	if err == nil {
		piece := new(reservationMessage)
		message := &piece.reply
		message.Replayed = reply.Replayed
		if reply.Reservation.ID.Token != 0 {
			encodeReservation(&piece.reservation, &reply.Reservation)
			message.Reservation = &piece.reservation
		}
		if reply.Event != nil {
			message.Event = encodeEvent(reply.Event)
		}
		if reply.Waiter != nil {
			message.Waiter = encodeWaiter(reply.Waiter)
		}
		piece.outcome.Reply, piece.response.Outcome = message, &piece.outcome
		return &piece.response
	}
	if refusal, ok := asRefusal(err); ok {
		message := &eventpb.Error{
			Code: string(refusal.Code), Detail: refusal.Detail, Available: uint32(refusal.Available),
			RetryAfterMs: uint32(refusal.RetryAfter.Milliseconds()),
		}
		for _, field := range refusal.Fields {
			message.Fields = append(message.Fields, &eventpb.FieldError{Field: field.Field, Message: field.Message})
		}
		return &eventpb.Response{Outcome: &eventpb.Response_Error{Error: message}}
	}
	if errors.Is(err, errMoved) {
		return &eventpb.Response{Outcome: &eventpb.Response_Moved{Moved: &eventpb.Moved{}}}
	}
	return &eventpb.Response{Outcome: &eventpb.Response_Unresolved{Unresolved: &eventpb.Unresolved{}}}
}

// decodeOutcome is the inverse of encodeOutcome at the caller, for the answer to a request. Its errors are *Error, errMoved,
// or errUnresolved, also for what cannot be an answer to this request.
func decodeOutcome(message *eventpb.Response, request *evently.Request) (evently.Reply, error) {
	switch outcome := message.GetOutcome().(type) {
	case *eventpb.Response_Reply:
		if reply, ok := decodeReply(outcome.Reply, request); ok {
			return reply, nil
		}
	case *eventpb.Response_Error:
		if refusal, ok := decodeRefusal(outcome.Error); ok {
			return evently.Reply{}, refusal
		}
	case *eventpb.Response_Moved:
		return evently.Reply{}, errMoved
	case *eventpb.Response_Unresolved:
		return evently.Reply{}, errUnresolved
	}
	return evently.Reply{}, errGarbled
}

// decodeReply returns false unless the reply has what the command asks for: a reservation or a waiter of its user, or the event.
func decodeReply(message *eventpb.Reply, request *evently.Request) (reply evently.Reply, ok bool) {
	reply.Replayed = message.GetReplayed()
	if r := message.GetReservation(); r != nil {
		if reply.Reservation, ok = decodeReservation(r); !ok {
			return evently.Reply{}, false
		}
	}
	if e := message.GetEvent(); e != nil {
		if reply.Event, ok = decodeEvent(e); !ok {
			return evently.Reply{}, false
		}
	}
	waiter := &evently.Waiter{}
	if w := message.GetWaiter(); w != nil {
		if reply.Waiter, ok = decodeWaiter(w); !ok {
			return evently.Reply{}, false
		}
		waiter = reply.Waiter
	}
	id, user := reply.Reservation.ID, reply.Reservation.User
	asked := evently.ReservationID{Event: request.Event}
	switch c := request.Command.(type) {
	case *evently.Book:
		ok = id.Event == request.Event && user == c.User
	case *evently.Confirm:
		asked.Token = c.Token
		ok = id == asked && user == c.User
	case *evently.Release:
		asked.Token = c.Token
		ok = id == asked && user == c.User
	case *evently.Cancel:
		asked.Token = c.Token
		ok = id == asked && user == c.User
	case *evently.JoinWaitlist:
		ok = waiter.ID.Event == request.Event && waiter.User == c.User
	case *evently.LeaveWaitlist:
		served := evently.ReservationID(waiter.ID)
		ok = waiter.ID.Event == request.Event && waiter.User == c.User && (id.Token == 0 || id == served && user == c.User)
	case *evently.Prioritize:
		ok = waiter.ID == evently.WaiterID{Event: request.Event, Token: c.Token}
	case *evently.Revise, *evently.Publish, *evently.CancelEvent, *evently.SetPricing, *evently.Reprice:
		ok = reply.Event != nil && reply.Event.ID == request.Event
	default:
		ok = true
	}
	return reply, ok
}

func decodeRefusal(message *eventpb.Error) (*evently.Error, bool) {
	refusal := &evently.Error{
		Code: evently.Code(message.GetCode()), Detail: message.GetDetail(), Available: int(message.GetAvailable()),
		RetryAfter: time.Duration(message.GetRetryAfterMs()) * time.Millisecond,
	}
	for _, field := range message.GetFields() {
		refusal.Fields.Add(field.GetField(), field.GetMessage())
	}
	return refusal, refusals[refusal.Code] && message.GetAvailable() <= evently.CapacityMax && refusal.RetryAfter <= retryAfterMax
}

func encodeItems(items *evently.Items) []*eventpb.Item {
	list, messages := make([]*eventpb.Item, items.Len()), make([]eventpb.Item, items.Len())
	for i := range list {
		item := items.At(i)
		list[i] = &messages[i]
		list[i].Tier, list[i].Quantity, list[i].UnitPriceMinor = int32(item.Tier), uint32(item.Quantity), item.UnitPriceMinor
	}
	return list
}

// decodeItems returns an *Error when there are none, or one is out of its bounds.
func decodeItems(list []*eventpb.Item) (evently.Items, error) {
	if len(list) > evently.TiersMax {
		return evently.Items{}, errMalformed
	}
	items := make([]evently.Item, len(list))
	for i, item := range list {
		items[i] = evently.Item{Tier: int(item.GetTier()), Quantity: int(item.GetQuantity()), UnitPriceMinor: item.GetUnitPriceMinor()}
		if !within(evently.PriceMinorMax, item.GetUnitPriceMinor()) {
			return evently.Items{}, errMalformed
		}
	}
	return evently.NewItems(items...)
}

// decodeAskedItems decodes the items of a Book. A single one may stand for the only tier.
func decodeAskedItems(list []*eventpb.Item) (evently.Items, error) {
	if len(list) != 1 || list[0].GetTier() != evently.OnlyTier {
		return decodeItems(list)
	}
	quantity := list[0].GetQuantity()
	if quantity < 1 || quantity > evently.MaxPerBookingMax {
		return evently.Items{}, errMalformed
	}
	return evently.OneItem(evently.Item{Tier: evently.OnlyTier, Quantity: int(quantity)}), nil
}

func encodeReservation(m *eventpb.Reservation, r *evently.Reservation) {
	m.Event, m.Token, m.User, m.Status = uint64(r.ID.Event), uint64(r.ID.Token), uint64(r.User), uint32(r.Status)
	m.Items, m.Currency, m.Seq = encodeItems(&r.Items), r.Currency, r.Seq
	m.CreatedAtMs, m.ExpiresAtMs = encodeTime(r.CreatedAt), encodeTime(r.ExpiresAt)
	m.ConfirmedAtMs, m.EndedAtMs = encodeTime(r.ConfirmedAt), encodeTime(r.EndedAt)
}

func decodeReservation(m *eventpb.Reservation) (evently.Reservation, bool) {
	items, err := decodeItems(m.Items)
	if err != nil || m.Token == 0 || m.Status > uint32(evently.Expired) ||
		!within(timeMax, m.CreatedAtMs, m.ExpiresAtMs, m.ConfirmedAtMs, m.EndedAtMs) {
		return evently.Reservation{}, false
	}
	return evently.Reservation{
		ID:   evently.ReservationID{Event: evently.EventID(m.Event), Token: evently.Token(m.Token)},
		User: evently.UserID(m.User), Status: evently.ReservationStatus(m.Status), Items: items, Currency: m.Currency,
		CreatedAt: decodeTime(m.CreatedAtMs), ExpiresAt: decodeTime(m.ExpiresAtMs),
		ConfirmedAt: decodeTime(m.ConfirmedAtMs), EndedAt: decodeTime(m.EndedAtMs), Seq: m.Seq,
	}, true
}

func encodeWaiter(w *evently.Waiter) *eventpb.Waiter {
	return &eventpb.Waiter{
		Event: uint64(w.ID.Event), Token: uint64(w.ID.Token), User: uint64(w.User), Items: encodeItems(&w.Items),
		OnRelease: uint32(w.OnRelease), Priority: int32(w.Priority), Position: uint32(w.Position), Status: uint32(w.Status),
		JoinedAtMs: encodeTime(w.JoinedAt), EndedAtMs: encodeTime(w.EndedAt), JoinedSeq: w.JoinedSeq, Seq: w.Seq,
	}
}

func decodeWaiter(m *eventpb.Waiter) (*evently.Waiter, bool) {
	items, err := decodeItems(m.Items)
	if err != nil || m.Token == 0 || m.OnRelease > uint32(evently.HoldOnRelease) || m.Status > uint32(evently.Closed) ||
		m.Priority < -evently.PriorityMax || m.Priority > evently.PriorityMax || m.Position < 1 || m.Position > evently.WaitersMax ||
		!within(timeMax, m.JoinedAtMs, m.EndedAtMs) {
		return nil, false
	}
	return &evently.Waiter{
		ID:   evently.WaiterID{Event: evently.EventID(m.Event), Token: evently.Token(m.Token)},
		User: evently.UserID(m.User), Items: items, OnRelease: evently.OnRelease(m.OnRelease), Priority: int(m.Priority),
		Position: int(m.Position), Status: evently.WaiterStatus(m.Status), JoinedAt: decodeTime(m.JoinedAtMs),
		EndedAt: decodeTime(m.EndedAtMs), JoinedSeq: m.JoinedSeq, Seq: m.Seq,
	}, true
}

// encodeTime returns the milliseconds of a moment; 0 for none.
func encodeTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// decodeTime is the inverse of encodeTime.
func decodeTime(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// within reports whether numbers are 0 to max.
func within(max int64, numbers ...int64) bool {
	for _, n := range numbers {
		if n < 0 || n > max {
			return false
		}
	}
	return true
}
