package cluster

import (
	"errors"

	"github.com/hashicorp/memberlist"
)

// Misjudge makes n take the member id for dead and then see it alive again, as after a long pause of that member.
func (n *Node) Misjudge(id string) error {
	n.provider.mu.Lock()
	var node *memberlist.Node
	var err error
	for _, m := range n.provider.peers {
		if m.ID == id {
			node = &memberlist.Node{Name: m.node.Name, Addr: m.node.Addr, Port: m.node.Port}
			node.Meta, err = m.encode()
		}
	}
	n.provider.mu.Unlock()
	if node == nil || err != nil {
		return errors.Join(errors.New("not a member"), err)
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
