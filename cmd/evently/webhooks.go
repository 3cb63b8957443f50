package main

import (
	"context"
	"errors"
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
	var secrets [][]byte
	for _, secret := range p.config.tokenSecrets() {
		secrets = append(secrets, secret.Key)
	}
	kept, err := store.NewWebhooks(pool, secrets)
	if err != nil {
		return nil, err
	}
	return &webhooks{kept, &messages.Targets{AllowPrivate: p.config.WebhookAllowPrivate == yes}}, nil
}

// webhookSweepPeriod is how often the log of deliveries is cut, and signing secrets are sealed anew after a rotation of jwt_secret.
const webhookSweepPeriod = time.Hour

func (w *webhooks) sweep(pool *pgxpool.Pool, keep time.Duration) store.PeriodicJob {
	if keep == 0 {
		keep = keepMax
	}
	return store.PeriodicJob{Name: "webhook_log", Every: webhookSweepPeriod, Run: func(ctx context.Context) error {
		_, sealed := w.kept.Reseal(ctx, time.Now())
		_, swept := store.SweepWebhooks(ctx, pool, time.Now(), keep)
		return errors.Join(sealed, swept)
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
