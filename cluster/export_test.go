package cluster

import (
	"errors"
	"time"

	"github.com/hashicorp/memberlist"
)

// Misjudge makes n take the member id for dead and then see it alive again, as after a long pause of that member.
func (n *Node) Misjudge(id string) error {
	node, err := n.provider.known(id)
	if err != nil {
		return err
	}
	changed := n.placement.view.Load().changed
	n.provider.NotifyLeave(node)
	<-changed
	n.provider.NotifyJoin(node)
	return nil
}

// ActivatorName is the actor that activates on behalf of other members.
const ActivatorName = activatorName

// BoardName is the actor that exchanges notices and queries.
const BoardName = boardName

// Accuse makes n hear that the member id is dead, and then its answer that it is not.
func (n *Node) Accuse(id string) error {
	node, err := n.provider.known(id)
	if err != nil {
		return err
	}
	n.provider.NotifyLeave(node)
	n.provider.NotifyJoin(node)
	<-time.After(2 * n.provider.grace)
	return nil
}

// known is a member in memberlist's terms.
func (p *provider) known(id string) (*memberlist.Node, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.peers {
		if m.ID == id {
			meta, err := m.encode()
			return &memberlist.Node{Name: m.node.Name, Addr: m.node.Addr, Port: m.node.Port, Meta: meta}, err
		}
	}
	return nil, errors.New("not a member")
}
