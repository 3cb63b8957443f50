package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/evently/evently"
	"github.com/evently/evently/actors"
	"github.com/evently/evently/cluster"
	"github.com/evently/evently/http"
	"github.com/evently/evently/store"
)

// program is a running node. Its parts are started in the order of the steps of start, and stopped in the opposite
// one: the API drains first, while all that it needs still works, and Postgres goes last.
type program struct {
	config   *Config
	log      *slog.Logger
	registry *prometheus.Registry

	public, admin net.Listener
	stops         []step     // in the order of the starts
	failed        chan error // told when a part has ended by itself; buffered for all of them
	parts         int
	webhooks      *webhooks
	mails         *mails
	jobs          *store.Jobs
}

// step undoes the start of a part.
type step struct {
	name string
	stop func(ctx context.Context) error
}

// failuresMax is how many parts can report their end.
const failuresMax = 16

// newProgram takes the addresses, so that a taken one is found before anything else is started. Clients that connect now
// are answered when the node is up.
func newProgram(config *Config, log *slog.Logger) (*program, error) {
	p := &program{config: config, log: log, registry: prometheus.NewRegistry(), failed: make(chan error, failuresMax)}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	if p.public, err = listen("http_addr", config.HTTPAddr); err != nil {
		return nil, err
	}
	if p.admin, err = listen("admin_addr", config.AdminAddr); err != nil {
		return nil, errors.Join(err, p.public.Close())
	}
	p.onStop("listeners", func(context.Context) error {
		return errors.Join(ignoreClosed(p.public.Close()), ignoreClosed(p.admin.Close()))
	})
	return p, nil
}

func listen(setting, addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: is another evently running? choose another address, or port 0 for a free one", setting, err)
	}
	return listener, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *program) onStop(name string, stop func(ctx context.Context) error) {
	p.stops = append(p.stops, step{name, stop})
}

// background runs a part until it is stopped. A part that ends before with an error ends the program.
func (p *program) background(name string, run func(ctx context.Context) error) {
	if p.parts++; p.parts > failuresMax {
		panic(fmt.Sprintf("program: %d parts, at most %d", p.parts, failuresMax))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := run(ctx)
		if err != nil && ctx.Err() == nil {
			p.failed <- fmt.Errorf("%s: %w", name, err)
			err = nil
		}
		ended <- err
	}()
	p.onStop(name, func(context.Context) error {
		cancel()
		return <-ended
	})
}

// start brings up all parts over a migrated database.
func (p *program) start(ctx context.Context, pool *pgxpool.Pool) error {
	p.onStop("database connections", func(context.Context) error {
		pool.Close()
		return nil
	})
	store.RegisterPool(p.registry, pool)
	storeMetrics := store.NewMetrics(p.registry)
	journal := store.OpenJournal(pool, store.JournalConfig{Logger: p.log, Metrics: storeMetrics})
	p.onStop("journal", func(context.Context) error {
		journal.Close()
		return nil
	})
	history := store.NewHistory(pool)
	observer := new(lateObserver)
	actorMetrics := actors.NewMetrics(p.registry)
	installation, err := store.Installation(ctx, pool)
	if err != nil {
		return err
	}
	node, err := p.startNode(ctx, installation, actors.NewKind(actors.Config{
		Journal: journal, Observer: observer, Logger: p.log, Metrics: actorMetrics,
	}))
	if err != nil {
		return err
	}
	engine := actors.NewEngine(node.System(), node, history, actorMetrics)
	engine.Logger = p.log
	pricer := &actors.Pricer{
		Engine: engine, Catalogue: store.NewCatalogue(pool), Logger: p.log, Metrics: actorMetrics, Now: time.Now,
	}

	if err := p.newSenders(pool, pricer); err != nil {
		return err
	}
	vitals := &vitals{gatherer: p.registry, log: p.log}
	p.background("vitals", vitals.run)
	config := p.httpConfig(pool, engine, history, pricer)
	p.inCluster(&config, journal, node, newSystem(node, vitals))
	server, err := http.New(config)
	if err != nil {
		return err
	}
	observer.server.Store(server)
	node.OnNotice(takenTopic, server.TakenElsewhere)
	signals := p.startSignals(pool, server, storeMetrics)
	withdrawal := &withdrawal{node: node, reachable: signals.Reachable, journal: journal, log: p.log}
	p.background("withdrawal", withdrawal.run)
	retention := store.NewRetention(pool, p.log)
	retention.Policies = store.RetentionPolicies{
		SecurityLog: p.config.RetentionSecurityLog, Mail: p.config.RetentionMail, Answers: p.config.RetentionAnswers,
		Webhooks: p.config.RetentionWebhooks,
	}
	p.background("retention", func(ctx context.Context) error {
		retention.Run(ctx)
		return nil
	})
	if err := p.startConsumers(ctx, pool); err != nil {
		return err
	}
	p.background("sweeper", func(ctx context.Context) error {
		sweeper := &actors.Sweeper{Engine: engine, Index: journal, Logger: p.log}
		sweeper.Run(ctx)
		return nil
	})
	p.serve(server)
	return nil
}

// newSenders makes the parts that tell others of what happens. They start with startConsumers.
func (p *program) newSenders(pool *pgxpool.Pool, pricer evently.Pricer) (err error) {
	if p.webhooks, err = p.newWebhooks(pool); err != nil {
		return err
	}
	if p.mails, err = p.newMails(pool); err != nil {
		return err
	}
	p.jobs, err = p.newJobs(pool, pricer)
	return err
}

// startSignals has a server hear of what other nodes changed.
func (p *program) startSignals(pool *pgxpool.Pool, server *http.Server, metrics *store.Metrics) *store.Listener {
	signals := store.NewListener(pool, store.Handlers{
		SessionEnded: server.SessionEnded, EventChanged: server.EventChanged, Resumed: server.SignalsResumed,
	}, p.log, metrics)
	p.background("signals", func(ctx context.Context) error {
		signals.Run(ctx)
		return nil
	})
	return signals
}

// serve starts to answer.
func (p *program) serve(server *http.Server) {
	p.background("admin listener", func(ctx context.Context) error { return server.ServeAdmin(ctx, p.admin) })
	p.background("API", func(ctx context.Context) error { return server.Serve(ctx, p.public) })
}

// takenTopic is what nodes tell each other by of bookings that count against their users' limit.
const takenTopic = "taken"

// startNode joins the cluster of the nodes over the same database: others are strangers to it. A node that leaves the cluster
// against its will ends the program, to be restarted under a new id.
func (p *program) startNode(ctx context.Context, installation string, props func(identity string) *actor.Props) (*cluster.Node, error) {
	transport, err := p.config.remoteTLS()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.StartTimeout)
	defer cancel()
	node, err := cluster.Start(ctx, cluster.Config{
		Name:       "evently-" + installation,
		GossipAddr: p.config.ClusterAddr, RemoteAddr: p.config.RemoteAddr,
		AdvertiseAddrs: cluster.Addrs{Gossip: p.config.ClusterAdvertise, Remote: p.config.RemoteAdvertise},
		Join:           p.config.Join,
		KeyFile:        p.config.ClusterKeyFile,
		RemoteTLS:      transport,
		Profile:        cluster.Profile(p.config.ClusterProfile),
		Quorum:         p.config.ClusterQuorum,
		Kinds:          map[string]cluster.Kind{actors.Kind: {Props: props, Drain: &actors.DrainMessage{}}},
		Messages:       actors.Messages(),
		Logger:         p.log,
		Registerer:     p.registry,
	})
	if err != nil {
		return nil, err
	}
	p.onStop("cluster node", node.Stop)
	p.background("cluster membership", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-node.Done():
			return node.Err()
		}
	})
	return node, nil
}

// httpConfig is that of a server alone, whatever the engine behind it.
func (p *program) httpConfig(pool *pgxpool.Pool, engine evently.Engine, history *store.History, pricer evently.Pricer) http.Config {
	c := p.config
	b := thisBuild()
	return http.Config{
		Engine: engine, Catalogue: store.NewCatalogue(pool), History: history,
		Waitlists: store.NewWaitlists(pool), Exports: history, Pricer: pricer,
		Accounts: store.NewAccounts(pool, p.mails.queue(p.jobs)), Answers: store.NewAnswers(pool),
		Streams: store.NewStreams(pool), Audit: store.NewAudit(pool),
		Analytics:        store.NewAnalytics(pool),
		StreamClientsMax: c.StreamClientsMax, StreamClientsPerAddress: c.StreamClientsPerAddress,
		Webhooks: p.webhooks.kept, WebhookTarget: p.webhooks.targets.Check, Mailbox: p.mails.shown(),
		Health: []http.HealthCheck{{Name: "database", Needed: true, Check: pool.Ping}},
		Info:   http.Info{Version: b.Version, Commit: b.Commit, Capabilities: capabilities},
		Tokens: http.TokenConfig{
			Secrets: c.tokenSecrets(), Issuer: c.TokenIssuer, Audience: c.TokenAudience, AccessTTL: c.AccessTTL, RefreshTTL: c.RefreshTTL,
		},
		BookLimit: c.RateLimitBook, AuthLimit: c.RateLimitAuth, AddressLimit: c.RateLimitAddress, RequireVerifiedEmail: c.RequireVerified == yes,
		DrainDelay: c.DrainDelay, DrainTimeout: c.DrainTimeout,
		TrustedProxies: c.TrustedProxies, CORSOrigins: c.CORSOrigins, HoldTTL: c.HoldTTL,
		Logger: p.log, AccessLog: c.AccessLog, Registerer: p.registry, Gatherer: p.registry,
	}
}

// inCluster makes the server that of a node.
func (p *program) inCluster(config *http.Config, journal *store.Journal, node *cluster.Node, system *system) {
	config.Health = append(config.Health,
		http.HealthCheck{Name: "journal", Needed: true, Check: func(context.Context) error {
			if since := journal.FailingSince(); !since.IsZero() { // withdrawal tries again
				return fmt.Errorf("no connection to write since %s", since.UTC().Format(time.RFC3339))
			}
			return nil
		}},
		http.HealthCheck{Name: "cluster", Needed: true, Check: func(context.Context) error { return node.Ready() }},
	)
	config.Info.Node = node.ID()
	config.Share = func(body []byte) { node.Notify(takenTopic, body) }
	config.Membership, config.System = system.membership, system.find
	config.Unfit = node.Done()
}

// capabilities are what this version can do beyond serving the catalogue, for clients that talk to several versions.
var capabilities = []string{
	"accounts", "analytics", "audit", "bookings", "events.manage", "holds", "idempotency_keys",
	"pricing", "streams", "waitlists", "webhooks",
}

// partStopMax bounds the end of a part. The API is bounded by its drain_timeout instead.
const partStopMax = 20 * time.Second

// stop ends all parts in order. It goes on after failures.
func (p *program) stop() error {
	var errs []error
	for _, step := range slices.Backward(p.stops) {
		p.log.Debug("stopping", "part", step.name)
		ctx, cancel := context.WithTimeout(context.Background(), partStopMax)
		if err := step.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", step.name, err))
		}
		cancel()
	}
	p.stops = nil
	return errors.Join(errs...)
}

// lateObserver passes committed states on to the server, once there is one. Until then nobody has asked for them.
type lateObserver struct{ server atomic.Pointer[http.Server] }

func (o *lateObserver) Committed(state *evently.State) {
	if server := o.server.Load(); server != nil {
		server.Committed(state)
	}
}
