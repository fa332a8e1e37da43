# shellcheck shell=bash
# What build changes in govmomi's own files; each line says why. Sourced by build.

# Methods that the overlay replaces get another name.
patch virtual_machine.go \
    's/^func (vm \*VirtualMachine) \(CreateSnapshot\|RelocateVM\)Task(/func (vm *VirtualMachine) stock\1Task(/' \
    's/^\tvm.Guest = &types.GuestInfo{}$/&\n\tvm.Capability.ChangeTrackingSupported = types.NewBool(true)/' \
    's/f, err := os.Open(filepath.Clean(file))/flag := os.O_RDWR\n\t\tif path.Ext(file) != ".vmx" {\n\t\t\tflag |= os.O_CREATE\n\t\t}\n\t\tf, err := os.OpenFile(filepath.Clean(file), flag, 0644)/'
patch snapshot.go \
    's/^func (v \*VirtualMachineSnapshot) RemoveSnapshotTask(/func (v *VirtualMachineSnapshot) stockRemoveSnapshotTask(/'
# Reading a property that is unset: an empty answer, not a panic.
patch property_collector.go \
    's/^\tif len(obj.PropSet) == 0 {$/\tif len(obj.PropSet) == 0 \&\& len(obj.MissingSet) == 0 {\n\t\tbody.Res = new(internal.FetchResponse)\n\t\treturn body\n\t}\n&/'
# Injected faults, in every call and in every task; no file without a session.
patch simulator.go \
    's/^\tm := reflect.ValueOf(handler).MethodByName(name)$/\tif f := vadpCall(method); f != nil {\n\t\treturn f\n\t}\n&/' \
    's/^\tds, ferr := s.findDatastore(r.URL.Query())$/\tif !vadpAuth(s, r) {\n\t\tw.WriteHeader(http.StatusUnauthorized)\n\t\treturn\n\t}\n&/'
patch task.go 's/^\t\tExecute: run,$/\t\tExecute: vadpTask(ref, name, run),/'
patch http_nfc_lease.go \
    's/^\tstatus := http.StatusOK$/\tif r.Method != http.MethodHead {\n\t\tvadpNFC(w, r, file)\n\t\treturn\n\t}\n&/'
patch resource_pool.go 's/Host:   "\*",/Host:   ctx.svc.Listen.Host,/'
patch folder.go 's/^\t\t\t\tName: c.req.Name,$/&\n\t\t\t\tDeviceChange: vadpVMX(c.req.Path),/'
patch host_datastore_system.go 's/Url: c.Spec.LocalPath,/Url: vadpNas(c.Spec),/'
