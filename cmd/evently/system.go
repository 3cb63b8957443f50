package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/actors"
	"github.com/evently/evently/cluster"
	"github.com/evently/evently/http"
)

const (
	// statusTopic is what nodes ask each other for their http.NodeStatus by.
	statusTopic = "status"
	// statusMax bounds the wait for the status of the other nodes, who are asked at the same time.
	statusMax = time.Second
)

// system tells how the cluster is, by asking each node.
type system struct {
	node   *cluster.Node
	vitals *vitals
}

// newSystem makes a node answer the others.
func newSystem(node *cluster.Node, vitals *vitals) *system {
	s := &system{node, vitals}
	node.OnQuery(statusTopic, func(context.Context, []byte) ([]byte, error) {
		status, err := s.own()
		if err != nil {
			return nil, err
		}
		return json.Marshal(status)
	})
	return s
}

func (s *system) membership() http.Membership {
	m := s.node.Membership()
	return http.Membership{Members: m.Members, Quorum: m.Quorum, Quorate: m.Quorate, Serving: m.Serving}
}

// find returns how all nodes are, and which of them an event belongs to.
func (s *system) find(ctx context.Context, event evently.EventID) (*http.System, error) {
	ctx, cancel := context.WithTimeout(ctx, statusMax)
	defer cancel()
	members := s.node.Members()
	found := &http.System{AsOf: time.Now().UTC(), Cluster: s.membership(), Nodes: make([]http.NodeStatus, len(members))}
	var all sync.WaitGroup
	for i := range members {
		all.Go(func() { found.Nodes[i] = s.of(ctx, &members[i]) })
	}
	all.Wait()
	if event != 0 {
		found.Placement = &http.Placement{EventID: event.String()}
		if owner, exists := s.node.Owner(actors.Kind, event.String()); exists {
			found.Placement.Node = &owner
		}
	}
	return found, nil
}

// of asks a member. The membership tells who it is, and the member how it is.
func (s *system) of(ctx context.Context, member *cluster.Member) http.NodeStatus {
	status, err := s.ask(ctx, member)
	if err != nil {
		text := err.Error()
		status = &http.NodeStatus{Error: &text}
	}
	start := member.Start.UTC()
	status.ID, status.Address, status.StartedAt = member.ID, member.Addr, &start
	status.State, status.Serving = http.NodeState(member.State), member.Serving
	status.This = member.ID == s.node.ID()
	return *status
}

func (s *system) ask(ctx context.Context, member *cluster.Member) (*http.NodeStatus, error) {
	switch {
	case member.ID == s.node.ID():
		return s.own()
	case member.State != cluster.MemberAlive:
		return nil, fmt.Errorf("the node is %s", member.State)
	}
	answer, err := s.node.Query(ctx, member.ID, statusTopic, nil)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("no answer within %s", statusMax)
	case err != nil:
		return nil, err
	}
	status := new(http.NodeStatus)
	if err := json.Unmarshal(answer, status); err != nil {
		return nil, fmt.Errorf("garbled answer: %w", err)
	}
	status.Error = nil
	return status, nil
}

// own is the status of this node, from its metrics.
func (s *system) own() (*http.NodeStatus, error) {
	before, now, err := s.vitals.since()
	if err != nil {
		return nil, err
	}
	count := func(name string) *int { n := int(now.sum(name)); return &n }
	rate := func(name string, labels ...string) *float64 { r := now.rate(before, name, labels...); return &r }
	latency, commits := now.observed(before, "evently_commit_seconds", 0.5, 0.99)
	var p50, p99 *float64 // unknown without commits
	if commits > 0 {
		latency[0], latency[1] = latency[0]*1000, latency[1]*1000
		p50, p99 = &latency[0], &latency[1]
	}
	version := thisBuild().Version
	return &http.NodeStatus{
		Version:                  &version,
		ActiveEvents:             count("evently_event_actors"),
		WaitingRequests:          count("evently_waiting_requests"),
		AppendQueue:              count("evently_append_queue"),
		InFlight:                 count("evently_http_in_flight_requests"),
		CommitsPerSecond:         &commits,
		CommitP50Millis:          p50,
		CommitP99Millis:          p99,
		BookingsPerSecond:        rate("evently_http_bookings_total", "outcome", "held"),
		HTTPRequestsPerSecond:    rate("evently_http_requests_total"),
		DatabaseConnections:      count("evently_pool_connections"),
		DatabaseConnectionsInUse: count("evently_pool_connections_in_use"),
	}, nil
}
