// Package simulator is govmomi's; the files of this folder are compiled into it (see ../build), so
// that methods go straight onto its types. A method that exists is a SOAP method that works.
//
// This file: one lock for the whole inventory, and the rules by which a test lets things go wrong.
package simulator

import (
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// world is held by whoever reads or changes the inventory or vadp: a SOAP call from its session's
// look-up until its answer is encoded, a task when it takes effect, a request of the test. The
// simulator's own locks, one per object, let tasks and calls race, so they are switched off.
var world sync.Mutex

// Enter takes the world; the function it returns gives it back, once.
func Enter() func() {
	world.Lock()
	var once sync.Once
	return func() { once.Do(world.Unlock) }
}

// rule says which calls something happens to. An empty Method or Vm is any; a negative Count is
// for ever.
type rule struct {
	Method, Vm   string
	Count, After int
}

func (r *rule) hits(method, vm string) bool {
	if r.Count == 0 || (r.Method != "" && r.Method != method) || (r.Vm != "" && r.Vm != vm) {
		return false
	}
	if r.After > 0 {
		r.After--
		return false
	}
	if r.Count > 0 {
		r.Count--
	}
	return true
}

// rules are what a test has set and "clear" forgets.
type rules struct {
	faults         []*faultRule
	answers        []*answerRule
	delays         []*delayRule
	questions      []*questionRule
	areas          []*areaRule
	reads          []*readRule
	refused        map[string]bool
	leftDeltas     map[string]int
	areaCap        int
	unit           int64
	unaligned      bool
	falsePositives int64
	leaseTimeout   time.Duration
	liveLocked     bool
}

func newRules() rules {
	return rules{
		refused: map[string]bool{}, leftDeltas: map[string]int{}, areaCap: 2000, unit: 64 << 10,
		leaseTimeout: defaultLeaseTimeout,
	}
}

// vadp is all state that the stock simulator does not have.
var vadp = struct {
	rules
	outer     *Method // the SOAP call being served, until its task was started
	calls     []callRecord
	callCount int
	waiting   map[types.ManagedObjectReference]*waitingTask
	messages  map[types.BaseMethodFault]string
	trackers  map[string]*tracker
	guests    map[string]*guest
	stuns     map[string]int64
	answered  map[string][]string
	pending   map[string]chan struct{} // questions by VM and id
	proxies   map[string]bool
	loops     map[string]attachedDisk
	imports   map[types.ManagedObjectReference]bool
	progress  map[types.ManagedObjectReference]time.Time // of NFC leases
	rest      map[string]bool                            // sessions of /rest: alive or expired
	state     string                                     // folder for what no datastore shows
	hotAdd    string
	user      string
	password  string
	nextTurn  int
}{
	rules:    newRules(),
	waiting:  map[types.ManagedObjectReference]*waitingTask{},
	messages: map[types.BaseMethodFault]string{},
	trackers: map[string]*tracker{},
	guests:   map[string]*guest{},
	stuns:    map[string]int64{},
	answered: map[string][]string{},
	pending:  map[string]chan struct{}{},
	proxies:  map[string]bool{},
	loops:    map[string]attachedDisk{},
	progress: map[types.ManagedObjectReference]time.Time{},
	imports:  map[types.ManagedObjectReference]bool{},
	rest:     map[string]bool{},
}

func virtualMachine(moid string) *VirtualMachine {
	vm, _ := Map.Get(types.ManagedObjectReference{Type: "VirtualMachine", Value: moid}).(*VirtualMachine)
	return vm
}

// vadpTurn spreads new VMs over the hosts in turn; the stock simulator draws lots.
func vadpTurn(n int) int {
	vadp.nextTurn++
	return (vadp.nextTurn - 1) % n
}
