import CKernels
import Testing

@Suite struct DispatchTests {
    @Test func tablesAreComplete() {
        #expect(KernelTable.available.first?.testDescription == "scalar")
        for table in KernelTable.available {
            let k = table.kernels
            #expect(mk_kernels_for(k.isa) != nil)
            for format in [MK_BF16, MK_Q8, MK_Q4] {
                #expect(k.prepared_size(format, 1000) == KernelTable.scalar.kernels.prepared_size(format, 1000))
            }
        }
    }

    @Test func bestIsOneOfThem() throws {
        let best = try #require(mk_kernels_best()).pointee
        #expect(KernelTable.available.contains { $0.kernels.isa == best.isa })
    }

    @Test func unknownSetIsNoTable() {
        #expect(mk_kernels_for(mk_isa(rawValue: 99)) == nil)
    }
}
