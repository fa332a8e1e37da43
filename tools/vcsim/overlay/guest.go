// The guest behind a VM's tools: who may log in, what programs do, and what was run.
package simulator

import (
	"encoding/json"
	"log"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// program is what running a path gives; negative Seconds are until it is ended.
type program struct {
	exitCode int32
	seconds  float64
}

type process struct {
	program
	info  types.GuestProcessInfo
	ended time.Time // by somebody; zero if not
}

type guest struct {
	tools          bool
	user, password string
	programs       map[string]program
	processes      []*process
}

func guestOf(vm string) *guest {
	g := vadp.guests[vm]
	if g == nil {
		g = &guest{tools: true, user: "backup", password: "Guest-secret-1", programs: map[string]program{}}
		vadp.guests[vm] = g
	}
	return g
}

// followTools sets what the VM says of its tools, by its power state.
func (vm *VirtualMachine) followTools() {
	g := guestOf(vm.Self.Value)
	status, running := types.VirtualMachineToolsStatusToolsNotInstalled, types.VirtualMachineToolsRunningStatusGuestToolsNotRunning
	state := types.VirtualMachineGuestStateNotRunning
	if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		state = types.VirtualMachineGuestStateRunning
	}
	if g.tools {
		status = types.VirtualMachineToolsStatusToolsNotRunning
		if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
			status, running = types.VirtualMachineToolsStatusToolsOk, types.VirtualMachineToolsRunningStatusGuestToolsRunning
		}
	}
	ready := running == types.VirtualMachineToolsRunningStatusGuestToolsRunning
	Map.Update(vm, []types.PropertyChange{
		{Name: "guest.toolsStatus", Val: status},
		{Name: "guest.toolsRunningStatus", Val: string(running)},
		{Name: "guest.guestState", Val: string(state)},
		{Name: "guest.guestOperationsReady", Val: ready},
		{Name: "summary.guest.toolsStatus", Val: status},
		{Name: "summary.guest.toolsRunningStatus", Val: string(running)},
	})
}

// enter is the guest for an operation, or why there is none.
func enter(ref types.ManagedObjectReference, auth types.BaseGuestAuthentication) (*guest, *soap.Fault) {
	vm := virtualMachine(ref.Value)
	if vm == nil {
		return nil, Fault("", &types.ManagedObjectNotFound{Obj: ref})
	}
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return nil, Fault("", &types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOn, ExistingState: vm.Runtime.PowerState,
		})
	}
	g := guestOf(ref.Value)
	if !g.tools {
		return nil, Fault("The guest operations agent could not be contacted.", new(types.GuestOperationsUnavailable))
	}
	a, ok := auth.(*types.NamePasswordAuthentication)
	if !ok || a.Username != g.user || a.Password != g.password {
		return nil, Fault("Failed to authenticate with the guest operating system.", new(types.InvalidGuestLogin))
	}
	return g, nil
}

// GuestAuthManager is what the stock simulator names and does not have.
type GuestAuthManager struct {
	mo.GuestAuthManager
}

// vadpGuestAuth is called when the stock simulator makes the other guest managers.
func vadpGuestAuth(m *GuestOperationsManager, r *Registry) {
	if m.AuthManager == nil {
		m.AuthManager = &types.ManagedObjectReference{Type: "GuestAuthManager", Value: "guestOperationsAuthManager"}
	}
	am := new(GuestAuthManager)
	am.Self = *m.AuthManager
	r.Put(am)
}

// ValidateCredentialsInGuest answers nothing if they are right.
func (m *GuestAuthManager) ValidateCredentialsInGuest(req *types.ValidateCredentialsInGuest) soap.HasFault {
	body := &methods.ValidateCredentialsInGuestBody{}
	if _, body.Fault_ = enter(req.Vm, req.Auth); body.Fault_ == nil {
		body.Res = new(types.ValidateCredentialsInGuestResponse)
	}
	return body
}

// StartProgramInGuest runs any path; what it gives is the test's to say, success at once unless.
func (m *GuestProcessManager) StartProgramInGuest(req *types.StartProgramInGuest) soap.HasFault {
	body := &methods.StartProgramInGuestBody{}
	g, fault := enter(req.Vm, req.Auth)
	if fault != nil {
		body.Fault_ = fault
		return body
	}
	spec := req.Spec.GetGuestProgramSpec()
	p := &process{program: g.programs[spec.ProgramPath]}
	p.info = types.GuestProcessInfo{
		Name: spec.ProgramPath, Pid: int64(1000 + len(g.processes)), Owner: g.user,
		CmdLine: spec.ProgramPath + " " + spec.Arguments, StartTime: time.Now(),
	}
	g.processes = append(g.processes, p)
	record("guest program", spec.ProgramPath, req.Vm.Value, p.info.CmdLine)
	log.Printf("guest %s runs %s", req.Vm.Value, p.info.CmdLine)
	body.Res = &types.StartProgramInGuestResponse{Returnval: p.info.Pid}
	return body
}

// GuestProcessInfo is the API's, except that govmomi's leaves an exit code of 0 out.
type GuestProcessInfo struct {
	Name      string     `xml:"name"`
	Pid       int64      `xml:"pid"`
	Owner     string     `xml:"owner"`
	CmdLine   string     `xml:"cmdLine"`
	StartTime time.Time  `xml:"startTime"`
	EndTime   *time.Time `xml:"endTime"`
	ExitCode  *int32     `xml:"exitCode"`
}

// ListProcessesInGuestResponse is named as its element.
type ListProcessesInGuestResponse struct {
	Returnval []GuestProcessInfo `xml:"returnval,omitempty"`
}

type listProcessesBody struct {
	Res    *ListProcessesInGuestResponse
	Fault_ *soap.Fault
}

func (b *listProcessesBody) Fault() *soap.Fault { return b.Fault_ }

// ListProcessesInGuest lists those asked for, ended ones too.
func (m *GuestProcessManager) ListProcessesInGuest(req *types.ListProcessesInGuest) soap.HasFault {
	body := &listProcessesBody{}
	g, fault := enter(req.Vm, req.Auth)
	if fault != nil {
		body.Fault_ = fault
		return body
	}
	body.Res = &ListProcessesInGuestResponse{}
	for _, p := range g.processes {
		for _, pid := range req.Pids {
			if pid == p.info.Pid {
				body.Res.Returnval = append(body.Res.Returnval, p.now())
			}
		}
		if len(req.Pids) == 0 {
			body.Res.Returnval = append(body.Res.Returnval, p.now())
		}
	}
	return body
}

func (p *process) now() GuestProcessInfo {
	i := p.info
	res := GuestProcessInfo{Name: i.Name, Pid: i.Pid, Owner: i.Owner, CmdLine: i.CmdLine, StartTime: i.StartTime}
	end, code := p.ended, p.exitCode
	if end.IsZero() && p.seconds >= 0 {
		end = i.StartTime.Add(time.Duration(p.seconds * float64(time.Second)))
	} else if !end.IsZero() {
		code = 137
	}
	if !end.IsZero() && !time.Now().Before(end) {
		res.EndTime, res.ExitCode = &end, &code
	}
	return res
}

// TerminateProcessInGuest ends a program, with exit code 137.
func (m *GuestProcessManager) TerminateProcessInGuest(req *types.TerminateProcessInGuest) soap.HasFault {
	body := &methods.TerminateProcessInGuestBody{}
	g, fault := enter(req.Vm, req.Auth)
	if fault != nil {
		body.Fault_ = fault
		return body
	}
	for _, p := range g.processes {
		if p.info.Pid == req.Pid && p.now().EndTime == nil {
			p.ended = time.Now()
			record("guest program ended", p.info.Name, req.Vm.Value, p.info.CmdLine)
			body.Res = new(types.TerminateProcessInGuestResponse)
			return body
		}
	}
	body.Fault_ = Fault("", &types.GuestProcessNotFound{Pid: req.Pid})
	return body
}

func setGuest(vm *VirtualMachine, line []byte) (reply, error) {
	c := struct {
		Tools          bool
		User, Password string
	}{}
	if err := json.Unmarshal(line, &c); err != nil {
		return nil, err
	}
	g := guestOf(vm.Self.Value)
	g.tools, g.user, g.password = c.Tools, c.User, c.Password
	return nil, nil
}

func (vm *VirtualMachine) setPower(state types.VirtualMachinePowerState) {
	Map.Update(vm, []types.PropertyChange{
		{Name: "runtime.powerState", Val: state}, {Name: "summary.runtime.powerState", Val: state},
	})
}
