package evently

// Command asks an event's ledger for a change. Commands are pointers so that passing one allocates nothing.
type Command interface{ command() }

// Book asks for a hold on seats, all items or none. Refusals, in this order: ErrKeyReused, ErrEventNotFound for a draft, ErrEventNotOnSale,
// CodeInvalidRequest for OnlyTier when the event offers several tiers, ErrUnknownTier, ErrQuantityExceedsLimit, ErrUserLimitExceeded,
// ErrSoldOut. Whoever waits for free seats is served first: as long as something is due, a Book is not to be decided.
//
// A Key that the ledger knows is answered with the first answer again. Whether the request is the same one is
// decided by the seats it asks for, which is all that the body of a booking says.
type Book struct {
	User  UserID
	Key   Key // never zero
	Items Items
	Token Token // fresh and random, never zero; becomes the reservation's
}

// Confirm makes a hold a booking. Repeating it changes nothing. Refusals: ErrReservationNotFound (also for another
// user's), ErrReservationExpired, ErrReservationCancelled.
type Confirm struct {
	User  UserID
	Token Token
}

// Release gives a hold back. Repeating it, also after expiry, changes nothing. Refusals: ErrReservationNotFound,
// ErrReservationConfirmed.
type Release struct {
	User  UserID
	Token Token
}

// Cancel ends a booking, or a hold, and frees its seats once. Repeating it changes nothing.
// Refusals: ErrReservationNotFound, ErrReservationExpired.
type Cancel struct {
	User  UserID
	Token Token
}

// Expire does what is due: it ends holds, serves waiters whom free seats suffice for, and closes the waitlist when sales have ended. It
// does at most SweepMax of each; NextDue says whether more is due.
type Expire struct{}

// Revise replaces the details of an event. Details are valid and normalized, keep every tier at its index, and are not
// modified afterwards. Refusals, in this order: ErrEventCancelled, ErrVersionStale, CodeInvalidRequest when the currency
// differs, CodeCapacityBelowSold.
type Revise struct {
	Version uint64 // that the change was made against
	Details EventDetails
}

// Publish puts a draft on sale. Repeating it changes nothing. Refusal: ErrEventCancelled.
type Publish struct{}

// CancelEvent ends all sales and cancels every live reservation, the first SweepMax in the same batch of entries and
// the others by the Sweeps that follow. Repeating it changes nothing.
type CancelEvent struct{}

// Sweep cancels live reservations of a cancelled event, at most SweepMax of them; NextDue says whether more are left.
type Sweep struct{}

// JoinWaitlist asks to be served when seats are freed. Refusals, in this order: ErrKeyReused, ErrEventNotFound for a draft,
// ErrEventNotOnSale, CodeInvalidRequest for OnlyTier when the event offers several tiers, ErrUnknownTier, ErrQuantityExceedsLimit (more
// than one reservation may have, or than a tier has), ErrUserLimitExceeded, ErrSeatsAvailable, ErrAlreadyWaiting, ErrWaitlistFull.
//
// A Key that the ledger knows is answered with the first answer again, as in Book.
type JoinWaitlist struct {
	User      UserID
	Key       Key // never zero
	Items     Items
	OnRelease OnRelease
	Token     Token // fresh and random, never zero; becomes the waiter's, and the reservation's that serves it
}

// LeaveWaitlist ends a user's waiting, or declines the offer that the user has not confirmed, whose seats pass on at once. A booking stays.
// Repeating it changes nothing. Refusal: ErrWaiterNotFound.
type LeaveWaitlist struct{ User UserID }

// Prioritize moves a waiter: higher priorities are served first, equal ones in the order they came. Repeating it changes
// nothing. Refusals: ErrWaiterNotFound, ErrNotWaiting.
type Prioritize struct {
	Token    Token
	Priority int // -PriorityMax to PriorityMax
}

// SetPricing replaces the pricing rule of an event and applies it at once, whatever the event's stage; nil removes it and brings the base
// prices back. The rule is valid and not modified afterwards. Refusals, in this order: ErrEventCancelled, ErrVersionStale.
type SetPricing struct {
	Version uint64 // that the change was made against
	Rule    *PricingRule
	DryRun  bool // only answers with the event as it would be, at its version of now
}

// Reprice sets the prices that the event's pricing rule gives now. It changes nothing when there is no rule, the event is not
// published or has begun, or no price differs. Refusal: ErrEventCancelled.
type Reprice struct {
	DryRun bool // only answers with the event as it would be, at its version of now
}

// SweepMax bounds the reservations that one Expire, Sweep or CancelEvent ends, and the waiters that it serves or closes.
const SweepMax = 512

func (*Book) command()          {}
func (*Confirm) command()       {}
func (*Release) command()       {}
func (*Cancel) command()        {}
func (*Expire) command()        {}
func (*Revise) command()        {}
func (*Publish) command()       {}
func (*CancelEvent) command()   {}
func (*Sweep) command()         {}
func (*JoinWaitlist) command()  {}
func (*LeaveWaitlist) command() {}
func (*Prioritize) command()    {}
func (*SetPricing) command()    {}
func (*Reprice) command()       {}
