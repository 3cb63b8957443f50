package bench

// Workload says what clients do. Workloads are data: Workloads lists those that there are.
type Workload struct {
	Name  string `json:"name"`  // on the command line, such as hot
	Title string `json:"title"` // in a table
	About string `json:"about"` // one sentence

	Events   int     `json:"events"`   // on sale
	Capacity int     `json:"capacity"` // seats of each
	Zipf     float64 `json:"zipf"`     // exponent of the events' popularity, as in the rank to the power of -Zipf; 0: all the same
	Demand   float64 `json:"demand"`   // the round ends when so many times the capacity was asked for; 0: it ends with its time
	SoldOut  bool    `json:"sold_out"` // all seats are sold before the round begins
	Mix      Mix     `json:"mix"`
	Counts   string  `json:"counts"` // what Round.Done counts: one of the Counts constants
}

// demand is how many visits there are in all; 0: as many as there is time for.
func (w *Workload) demand() int { return int(w.Demand * float64(w.Capacity*w.Events)) }

// What Round.Done counts.
const (
	CountsBooked   = "booked"
	CountsRefused  = "refused"
	CountsRead     = "read"
	CountsAnswered = "answered" // all but failures
)

// Mix is what a visit is, as shares of 1 that need not add up to it: the rest are bookings of one seat and nothing more. The requests of
// a visit follow each other: each is sent when the one before is answered.
type Mix struct {
	Reads    float64 `json:"reads"`    // GET /events/{id}
	Retries  float64 `json:"retries"`  // a booking that is sent once more with the same key
	Confirms float64 `json:"confirms"` // a booking that is confirmed
	Cancels  float64 `json:"cancels"`  // a booking that is confirmed and then cancelled
}
