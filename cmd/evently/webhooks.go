package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently/messages"
	"github.com/evently/evently/store"
)

// webhooks are the parts that tell others of what happens.
type webhooks struct {
	kept    *store.Webhooks
	targets *messages.Targets
}

func (p *program) newWebhooks(pool *pgxpool.Pool) (*webhooks, error) {
	kept, err := store.NewWebhooks(pool, p.config.secretKeys())
	if err != nil {
		return nil, err
	}
	return &webhooks{kept, &messages.Targets{AllowPrivate: p.config.WebhookAllowPrivate == yes}}, nil
}

// resealPeriod is how often signing secrets are sealed anew, which they need after a rotation of jwt_secret.
const resealPeriod = time.Hour

func (w *webhooks) reseal() store.PeriodicJob {
	return store.PeriodicJob{Name: "webhook_secrets", Every: resealPeriod, Run: func(ctx context.Context) error {
		_, err := w.kept.Reseal(ctx, time.Now())
		return err
	}}
}

// start has this node send what waits.
func (w *webhooks) start(ctx context.Context, p *program) error {
	queue, err := w.kept.Queue(ctx, p.log)
	if err != nil {
		return err
	}
	p.onStop("webhook connections", func(context.Context) error {
		queue.Close()
		return nil
	})
	dispatcher := messages.NewDispatcher(messages.DispatcherConfig{
		Queue: queue, Targets: w.targets, Logger: p.log, Metrics: messages.NewWebhookMetrics(p.registry), Now: time.Now,
	})
	p.background("webhooks", func(ctx context.Context) error {
		// At once, so that the secret before can be dropped when the nodes have been restarted.
		if _, err := w.kept.Reseal(ctx, time.Now()); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "secrets of webhooks are not sealed anew; trying again within an hour", "error", err)
		}
		dispatcher.Run(ctx)
		return nil
	})
	return nil
}
