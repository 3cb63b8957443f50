// Package cluster finds the one actor that serves an identity, on whichever member it lives.
//
// Problem: an event's actor must be reachable from every node, should run once, and must move when its node leaves,
// dies or a new one joins. Proto.Actor gives mailboxes, remoting and the shell of a cluster; it does not give sound
// placement or failure detection, so both are here: membership comes from memberlist (provider.go), placement is
// rendezvous hashing over an atomic view of the members (view.go, placement.go).
//
// Invariants:
//   - Placement only routes. Two members may serve one identity while their views differ; the epoch in the store decides
//     who may write. Nothing here is needed for safety, everything for speed.
//   - A member activates an identity only if its own view says it owns it, and at most once at a time: a new activation
//     starts after the one before has handled Stopped.
//   - Activations that a member no longer owns, after a join or at a drain, are asked to go (Kind.Drain).
//   - No lock is held while a message is under way, and a look-up that waits is released by the next view.
//   - Nobody publishes a view of itself alone before it has joined the seeds it was given.
//
// Failures:
//   - A member that leaves says so and its identities move at once. One that dies is noticed by probing (Profile).
//   - A member that others took for dead never comes back under its ID, since what it knows was superseded: it is told
//     (ErrEvicted) and must restart. So must one that had a quorum and lost it (ErrMinority). Both are reported by
//     Node.Done; from then on it activates nothing and its activations are asked to go.
//   - A message sent to a stopped or unreachable PID vanishes or dead-letters. The caller gives it a deadline, calls
//     Node.Forget and Node.Locate, and sends again.
//
// Proto.Actor's own gossip is turned off: it would be a second failure detector that blocks members on its own.
package cluster
