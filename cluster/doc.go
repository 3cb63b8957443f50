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
//   - Without a quorum, nobody publishes a view of itself alone before it has joined a seed it was given. With one it may: a
//     view below the quorum has no owners, so members can be started in any order and wait for each other.
//   - Kinds are part of the view. A member that withdraws tells by gossip that it hosts none, as a newer incarnation of itself,
//     so that late messages change nothing; it refuses to activate before anybody has heard of it.
//   - What waits for another member is bounded: one notice is under way to it, and each is confirmed.
//
// Failures:
//   - A member that leaves says so and its identities move at once. One that dies is noticed by probing (Profile).
//   - A member that others took for dead never comes back under its ID, since what it knows was superseded: it is told
//     (ErrEvicted) and must restart. So must one that had a quorum and lost it (ErrMinority). Both are reported by
//     Node.Done; from then on it activates nothing and its activations are asked to go.
//   - The process that is started again, with a new ID on the same addresses, need not wait until the old ID is dead: of
//     two members with one address the younger counts. Below its quorum it calls on all seeds several times a second.
//   - A message sent to a stopped or unreachable PID vanishes or dead-letters. The caller gives it a deadline, calls
//     Node.Forget and Node.Locate, and sends again.
//   - A notice that is not confirmed within a second is given up. Notices are hints; what must not be lost has another way.
//
// Upgrades: nodes of two versions are members of one cluster, so what one sends must not harm the other.
//   - Fields that a node does not know are ignored, in the gossip (meta) as in messages.
//   - Topics of notices and queries that a node does not know are ignored or answered with ErrUnknownTopic. What members have to
//     say to each other is therefore a new topic, not a new type of message: package noticepb has the only one.
//   - Messages of types that a node does not have, and garbled batches, are ignored and counted (inbound.go). Left to itself
//     Proto.Actor ends the connection at the first one, with all that is under way on it, and so do versions before this rule.
//     A type that is sent by itself is therefore still deployed to all nodes before the first node sends one: ignored, a
//     request waits for its deadline.
//   - The same happens to types that a node has and does not list: from other processes it takes those of Config.Messages, which
//     actors.Messages gives it, and the few of this package. A type that is sent by itself must be added to one of the lists.
//   - The hash of identities and the choice of owners never change (view_test.go holds them).
//
// Proto.Actor's own gossip is turned off: it would be a second failure detector that blocks members on its own.
package cluster
