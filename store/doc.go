// Package store keeps events, reservations, the journal and accounts in Postgres.
//
// Problem: many events are written by their owners at once, each answer must be durable before it leaves, and a commit
// costs a disk flush. And an owner may be superseded without knowing, paused in the middle of a commit, or lose the
// connection just when the commit may have happened.
//
// Invariants:
//   - Rows are the truth and the journal is their history: every batch writes both, and the head of its event, in one
//     statement, which is one transaction.
//   - A batch takes effect only if the head still has its epoch, its owner and its previous seq. The conditions are
//     part of the same statement as the inserts, so a superseded owner writes nothing at all.
//   - One event's batches go through one writer, in order. Heads are locked in the order of their ids, so two batches
//     cannot deadlock, whatever else goes on.
//   - Counts are checked once more by a constraint of the head; a key, an id and a seq exist once by unique indexes.
//
// Failures of a batch are of four kinds (see evently.Journal): fenced and not written are certain; unknown is what remains when
// the connection broke after the statement was sent. Only Acquire settles the unknown: it waits for the row lock of a
// commit that is under way, and raises the epoch, so that one that has not begun yet is fenced.
//
// An owner that hangs, stopped or cut off in the middle of a commit, keeps the lock of its head. Whoever acquires the event
// ends that session after half a second or so: see evictor.
//
// Schema: nodes of two versions share it while they are upgraded one by one, see Migrate. What nodes cache of it is kept
// fresh by signals, see Listener; never by one that a booking would have to send.
//
// Time: the database's clock is the journal's. The rule of expiry is applied by the ledger in the order of the journal, and
// not again in the transaction: the order alone keeps seats safe, and a second look at the clock would turn a commit that
// is merely slow into a failed batch of everybody else.
package store
