// Package actors runs the box offices: one Proto.Actor virtual actor for each event that is in use.
//
// Problem: reservations of one event must be decided one after the other, without a row lock held across a round trip
// and without losing or doubling one when a process dies. The event's actor decides them in memory and answers when the
// journal has committed.
//
// Invariants:
//   - Every answer left after the journal confirmed, later than the request came, that this actor owns the event.
//   - What an actor has decided and not committed is seen by nobody but later requests of the same actor, whose answers
//     wait for it.
//   - An actor lives through one tenure. Any failure to append retires it; the next activation acquires the event anew,
//     which fences every commit of the tenure before.
//
// Callers on other nodes send the messages of package eventpb. The actor's mailbox makes the same calls of them that callers
// in this process send without serialization, so that all else knows one kind of caller only.
//
// Two nodes may believe to own an event, while they see different members. The later acquisition fences the earlier one, and so
// on: the node that has lost the event pauses before it acquires it again, longer each time (backoff.go), so that
// they take turns and work gets done in between.
//
// Failures: a caller whose outcome is not known is told so (errUnresolved) and Engine repeats the request. That is
// safe because requests are idempotent: a Book or a JoinWaitlist by its key, the others by the state of what they change. A Revise and a
// SetPricing are the exceptions: they are not repeated once they may have been decided.
package actors
