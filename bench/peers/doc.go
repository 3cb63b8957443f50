// Package peers holds the designs that seats are usually sold by, as real engines behind the same HTTP shell as Evently's own, so
// that a comparison measures the design and not the server around it.
//
// All lists them. Each is built to win: statements are prepared, a booking is one round trip where the design permits it, event
// details are cached in the process and refreshed by signals of the database, refusals take no lock, connections to Redis are
// shared by pipelines, and how many connections a design does best with stands beside it, and how many bookings of one event at a time
// where each waits for the one before. All use the tables events, event_heads and reservations with the indexes that these
// have, and add only what their design rests on.
//
// Invariants, held by one conformance suite over all of them:
//   - A tier never has more live seats than its capacity, whoever asks at the same time.
//   - An idempotency key has one reservation: it is answered with the first answer again, or refused for another request.
//   - A hold that has expired cannot be confirmed, and its seats can be sold again.
//   - Sales window, status, seats in one booking and prices are those of the event.
//
// What they need not do, and Evently does: write a journal, serve a waitlist, limit the seats of a user, sell several tiers in one
// booking, hold the answers to all changes of an event in one order, and end holds at their time (they do so when the seats are wanted). It is
// an advantage for them, and a figure measured against them has to be read so.
package peers
